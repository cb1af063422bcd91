"""Growing a run by columns: what a query found is put away in arrays at once, so that memory is twelve bytes a row."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

import numpy as np

from rerankdistill.errors import DataError
from rerankdistill.types import Hit, Run

Item = TypeVar("Item")


class Columns:
    """Collects ranked documents query by query."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._codes_of: dict[str, int] = {}
        self._query_ids: dict[str, None] = {}
        self._lengths: list[int] = []
        self._codes: list[np.ndarray[tuple[int], np.dtype[np.int32]]] = []
        self._scores: list[np.ndarray[tuple[int], np.dtype[np.float64]]] = []

    def add(self, query_id: str, hits: Iterable[Hit | tuple[str, float]], depth: int | None = None) -> None:
        """Put away a query's documents, ordered by (-score, doc_id) and cut to ``depth``.

        Raises:
            DataError: the query was put away before, or a score is NaN.
        """
        if query_id in self._query_ids:
            raise DataError(f"query {query_id!r} occurs twice", where=f"run {self.name!r}")
        found = sorted(hits, key=lambda hit: (-hit[1], hit[0]))[:depth]
        scores = np.fromiter((score for _, score in found), np.float64, len(found))
        if np.isnan(scores).any():  # a NaN is never in its place, so it must not be there at all
            doc_id = found[int(np.isnan(scores).argmax())][0]
            raise DataError(f"query {query_id!r}, document {doc_id!r}: the score is NaN", where=f"run {self.name!r}")
        codes_of = self._codes_of
        codes = (codes_of.setdefault(doc_id, len(codes_of)) for doc_id, _ in found)
        self._codes.append(np.fromiter(codes, np.int32, len(found)))
        self._scores.append(scores)
        self._lengths.append(len(found))
        self._query_ids[query_id] = None

    def run(self) -> Run:
        """The run of everything that was added."""
        return Run(
            self.name,
            tuple(self._query_ids),
            np.concatenate([[0], np.cumsum(self._lengths)]).astype(np.int64),
            tuple(self._codes_of),
            np.concatenate([np.empty(0, np.int32), *self._codes]).astype(np.int32),
            np.concatenate([np.empty(0, np.float64), *self._scores]),
        )


def in_batches(items: Iterable[Item], size: int) -> Iterator[Sequence[Item]]:
    """Lists of ``size`` items, the last one shorter."""
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch
