"""The documents of a folder: held in memory, or, when the file is large and uncompressed, found again by seeking."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from threading import Lock
from typing import Protocol

import numpy as np

from rerankdistill.collections.files import lines, read_doc, unique
from rerankdistill.collections.memory import hash_records
from rerankdistill.errors import DataError
from rerankdistill.types import Doc

HOLD_BYTES = 256 * 2**20
"""Uncompressed files above this size are not held in memory: ids and offsets are, texts stay in the file."""


class Documents(Protocol):
    """Documents in a fixed order, and by id."""

    @property
    def ids(self) -> Sequence[str]: ...

    @property
    def fingerprint(self) -> str: ...

    def __iter__(self) -> Iterator[Doc]: ...

    def find(self, doc_id: str) -> Doc | None: ...


class Held:
    """Documents in memory."""

    def __init__(self, docs: Iterable[Doc]) -> None:
        self._docs = {doc.doc_id: doc for doc in docs}
        self.ids = list(self._docs)
        self.fingerprint = hash_records(self._docs.values())

    def __iter__(self) -> Iterator[Doc]:
        return iter(self._docs.values())

    def find(self, doc_id: str) -> Doc | None:
        return self._docs.get(doc_id)


class Sought:
    """Documents of an uncompressed file; read once to check every line, then one seek for each text."""

    def __init__(self, path: Path) -> None:
        self._path, self._file, self._one = path, path.open("rb"), Lock()
        weakref.finalize(self, self._file.close)
        self.fingerprint = hash_records(unique(read_docs(path), _doc_id, "document id"))
        self._rows = {doc.doc_id: row for row, (_, doc) in enumerate(read_docs(path))}
        self.ids = list(self._rows)
        self._offsets = self._line_starts()

    def _line_starts(self) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        starts, position = [], 0
        for raw in self._file:
            if raw.strip():
                starts.append(position)
            position += len(raw)
        return np.asarray(starts, np.int64)

    def __iter__(self) -> Iterator[Doc]:
        return (doc for _, doc in read_docs(self._path))

    def find(self, doc_id: str) -> Doc | None:
        row = self._rows.get(doc_id)
        if row is None:
            return None
        with self._one:
            self._file.seek(int(self._offsets[row]))
            line = self._file.readline()
        return read_doc(self._path, str(self._path), line.decode("utf-8-sig").rstrip("\r\n"))


def read_docs(path: Path) -> Iterator[tuple[str, Doc]]:
    """Yield ``(place, document)``."""
    for place, line in lines(path):
        yield place, read_doc(path, place, line)


def open_documents(path: Path) -> Documents:
    """The documents of a corpus file.

    Raises:
        DataError: a damaged line, a duplicate id, or no document at all.
    """
    large = path.suffix != ".gz" and path.stat().st_size > HOLD_BYTES
    docs: Sought | Held = Sought(path) if large else Held(unique(read_docs(path), _doc_id, "document id"))
    if not docs.ids:
        raise DataError("no documents", where=str(path), fix="give the file its documents, one a line")
    return docs


def _doc_id(doc: Doc) -> str:
    return doc.doc_id
