"""Readers of published score files: ids as integers, scores in one sorted array."""

from __future__ import annotations

import gzip
import math
import zlib
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from rerankdistill.errors import DataError
from rerankdistill.types import FloatArray

SHAPES = {
    "trec": "query_id Q0 doc_id rank score tag",
    "tsv": "query_id doc_id score",
    "margin_mse": "pos_score neg_score query_id pos_id neg_id",
}
TOLERANCE = 1e-6
"""Two scores of one pair may differ by this much, relative to scores above 1, and count as the same."""


class Recorded:
    """Scores of pairs: ``keys`` sorted, a query's number in the upper 32 bits and a document's in the lower."""

    def __init__(
        self, queries: dict[str, int], docs: dict[str, int], keys: NDArray[np.uint64], scores: FloatArray
    ) -> None:
        self.queries, self.docs, self.keys, self.scores = queries, docs, keys, scores

    def __len__(self) -> int:
        return len(self.keys)

    def find(self, query_id: str, doc_ids: Sequence[str]) -> FloatArray:
        """``[len(doc_ids)]`` scores, NaN where there is none."""
        out = np.full(len(doc_ids), np.nan, np.float32)
        query = self.queries.get(query_id)
        if query is None or not len(self.keys):
            return out
        numbers = [self.docs.get(doc_id, -1) for doc_id in doc_ids]
        known = np.array([number >= 0 for number in numbers], np.bool_)
        wanted = np.array([(query << 32) | max(number, 0) for number in numbers], np.uint64)
        at = np.minimum(np.searchsorted(self.keys, wanted), len(self.keys) - 1)
        hit = known & (self.keys[at] == wanted)
        out[hit] = self.scores[at[hit]]
        return out


class _Columns:
    def __init__(self) -> None:
        self.queries: dict[str, int] = {}
        self.docs: dict[str, int] = {}
        self.keys, self.scores, self.lines = array("Q"), array("d"), array("Q")

    def add(self, query_id: str, doc_id: str, score: float, line: int) -> None:
        query = self.queries.setdefault(query_id, len(self.queries))
        self.keys.append(query << 32 | self.docs.setdefault(doc_id, len(self.docs)))
        self.scores.append(score)
        self.lines.append(line)


def read_scores(path: Path, shape: str = "auto") -> Recorded:
    """Read a file of published scores.

    Raises:
        DataError: not of the format, a score that is no finite number, two different scores for one pair, a broken
            .gz, not UTF-8, or empty; names the line or lines.
    """
    columns = _Columns()
    for number, line in _lines(path):
        fields = line.split("\t") if "\t" in line else line.split()
        if shape == "auto":
            shape = _detect(fields, path, number)
        if number == 1 and shape != "trec" and not _number(fields[0] if shape == "margin_mse" else fields[-1]):
            continue  # a line of column names
        try:
            if shape == "trec":
                query_id, _, doc_id, _, score, _ = fields
                columns.add(query_id, doc_id, _finite(score), number)
            elif shape == "tsv":
                query_id, doc_id, score = fields
                columns.add(query_id, doc_id, _finite(score), number)
            else:
                first, second, query_id, positive, negative = fields
                columns.add(query_id, positive, _finite(first), number)
                columns.add(query_id, negative, _finite(second), number)
        except ValueError as error:
            what = f"not a line of {SHAPES[shape]!r}: {line[:80]!r}"
            raise DataError(what, where=f"{path}, line {number}", fix="check options.format in the card") from error
    if not columns.keys:
        raise DataError("there is no score in this file", where=str(path))
    return _index(columns, path)


def _index(columns: _Columns, path: Path) -> Recorded:
    keys = np.frombuffer(columns.keys, np.uint64)
    order = np.argsort(keys, kind="stable")
    keys, scores = keys[order], np.frombuffer(columns.scores, np.float64)[order]
    same = keys[1:] == keys[:-1]
    apart = np.abs(np.diff(scores)) > TOLERANCE * np.maximum(1.0, np.abs(scores[1:]))
    if len(wrong := np.flatnonzero(same & apart)):
        at = int(wrong[0])
        lines = [columns.lines[int(order[row])] for row in (at, at + 1)]
        query_id = list(columns.queries)[int(keys[at]) >> 32]
        doc_id = list(columns.docs)[int(keys[at]) & 0xFFFFFFFF]
        what = f"query {query_id!r}, document {doc_id!r} has two scores: {scores[at]:g} and {scores[at + 1]:g}"
        raise DataError(what, where=f"{path}, lines {lines[0]} and {lines[1]}", fix="keep one of the two lines")
    first = np.concatenate([[True], ~same])
    return Recorded(columns.queries, columns.docs, keys[first], scores[first].astype(np.float32))


def _detect(fields: list[str], path: Path, number: int) -> str:
    if len(fields) == 6:
        return "trec"
    if len(fields) == 3:
        return "tsv"
    if len(fields) == 5:
        return "margin_mse"
    known = "; ".join(f"{name}: {shape}" for name, shape in SHAPES.items())
    raise DataError(f"a line of {len(fields)} fields is none of {known}", where=f"{path}, line {number}")


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """The numbered lines that are not empty."""
    number = 0
    try:
        with _open(path) as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, line.rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise DataError("not UTF-8", where=f"{path}, after line {number}", fix="save the file as UTF-8") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        what = f"the .gz is broken: {error}"
        raise DataError(what, where=f"{path}, after line {number}", fix="fetch the file again") from error


def _open(path: Path) -> IO[str]:
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    if packed or path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8")
    return path.open(encoding="utf-8")


def _number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value
