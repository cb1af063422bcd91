"""Vectors that are there already: of texts that did not change nothing is computed again.

Of documents, what the product before held at the same place, or one beside it, by the same model; of queries, a file
beside the products, one for each model, since the same queries are asked in several lanes and again when documents
come and go.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from rerankdistill import artifacts
from rerankdistill.errors import ArtifactError
from rerankdistill.pipeline.step import Step
from rerankdistill.types import FloatArray

MARK = "mark"
"""The column of ``ids.parquet`` that says which text a row is of."""
MOST_QUERIES = 100_000
"""Beyond so many queries their vectors are not kept."""

Encode = Callable[[Sequence[str]], FloatArray]


def marks_of(texts: Sequence[str]) -> NDArray[np.uint64]:
    """``[n]``: eight bytes of each text's hash."""
    return np.fromiter(map(text_mark, texts), np.uint64, len(texts))


def text_mark(text: str) -> int:
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little")


class Known:
    """Vectors ``[n, d]`` with the marks of their texts.

    Attributes:
        encoded: how many texts :meth:`complete` did not find here.
    """

    def __init__(self, marks: NDArray[np.uint64] | None = None, vectors: FloatArray | None = None) -> None:
        self.vectors, self.encoded = vectors, 0
        self._rows = {} if marks is None else {mark: row for row, mark in enumerate(marks.tolist())}

    def complete(self, texts: Sequence[str], encode: Encode) -> FloatArray:
        """``[len(texts), d]``: what is known, and the rest encoded."""
        rows = np.array([self._rows.get(mark, -1) for mark in marks_of(texts).tolist()], np.int64)
        new = np.flatnonzero(rows < 0)
        self.encoded += len(new)
        if self.vectors is None or len(new) == len(texts):
            return encode(texts)
        out = np.empty((len(texts), self.vectors.shape[1]), np.float32)
        out[rows >= 0] = self.vectors[rows[rows >= 0]]
        if len(new):
            out[new] = encode([texts[at] for at in new.tolist()])
        return out


def known_docs(step: Step) -> Known:
    """What a step's place holds from before, or else another product beside it, where the same model made it in the
    same way: a collection may hold the documents of another one."""
    home = step.folder.parent
    others = sorted(home.iterdir()) if home.is_dir() else []
    places = dict.fromkeys([step.folder, *others])
    return next((held for place in places if (held := _held(place, step)) is not None), Known())


def _held(place: Path, step: Step) -> Known | None:
    wanted = step.manifest
    try:
        found = artifacts.read(place, wanted.kind)
        alike = (found.format, found.card) == (wanted.format, wanted.card)
        if not alike or found.inputs.get("model") != wanted.inputs["model"]:
            return None
        table = pq.read_table(place / "ids.parquet")
        vectors = np.load(place / "vectors.npy", mmap_mode="r")
    except (ArtifactError, OSError):
        return None
    return Known(table[MARK].to_numpy(), vectors) if MARK in table.column_names else None


def encode_queries(path: Path, texts: Sequence[str], encode: Encode) -> FloatArray:
    """``[len(texts), d]``, those that ``path`` holds taken from there, the others put to them."""
    if not texts or len(texts) > MOST_QUERIES:
        return encode(texts)
    known = _read(path)
    vectors = known.complete(texts, encode)
    if known.encoded:
        part = path.with_name(f".{path.name}.part")
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            np.savez(file, marks=marks_of(texts), vectors=vectors)
        part.replace(path)
    return vectors


def _read(path: Path) -> Known:
    try:
        with np.load(path) as held:
            return Known(held["marks"], held["vectors"])
    except (OSError, ValueError, KeyError):
        return Known()
