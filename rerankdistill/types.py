"""The frozen records that pass between rooms. No torch, no files.

Names are ir-datasets' own: ``query_id``, ``doc_id``, docs, queries, qrels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]


class Scale(StrEnum):
    """What a teacher's number means. A loss says which of these it can eat."""

    LOGIT = "logit"
    LOGPROB = "logprob"
    PROBABILITY = "probability"
    RANK = "rank"
    SIMILARITY = "similarity"
    LEXICAL = "lexical"
    GRADE = "grade"
    ZSCORE = "zscore"
    """Made by ``examples`` when it standardises a complete list; never in a score store."""


class View(StrEnum):
    """What a model reads of a document."""

    TITLE_TEXT = "title+text"
    TEXT = "text"


class Doc(NamedTuple):
    doc_id: str
    text: str
    title: str = ""

    def view(self, view: View) -> str:
        """The text a model reads: the title, where shown, then a space, then the body."""
        return f"{self.title} {self.text}".strip() if view is View.TITLE_TEXT else self.text


class Query(NamedTuple):
    query_id: str
    text: str


class Judgement(NamedTuple):
    query_id: str
    doc_id: str
    grade: int


class Hit(NamedTuple):
    doc_id: str
    score: float


class Candidate(NamedTuple):
    """One document to be scored for one query; ``source`` names the runs that found it (``bm25 flat``, ``judged``)."""

    query_id: str
    doc_id: str
    rank: int
    source: str


class TeacherScore(NamedTuple):
    query_id: str
    doc_id: str
    score: float


class Group(NamedTuple):
    """One query and documents to judge for it, as texts: the unit of work a teacher is handed."""

    query: Query
    doc_ids: tuple[str, ...]
    texts: tuple[str, ...]


class Answer(NamedTuple):
    """What a teacher says of one group of ``n`` documents, where it says more than a score.

    Attributes:
        scores: ``[n]`` raw scores; NaN where there is no answer.
        details: for each document the numbers behind its score: both logits of a yes/no question, or P(this document
            beats document j) for every j of the group (NaN where the two were not compared). Empty: none is kept.
        traces: for each document what the teacher wrote before its verdict. Empty: none is kept.
    """

    scores: FloatArray
    details: tuple[FloatArray, ...] = ()
    traces: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Example:
    """One training list.

    Attributes:
        doc_ids: ``n`` documents.
        scores: ``[n]`` teacher scores, one scale for the whole list; NaN where the teacher gave none.
        labels: ``[n]`` grades >= 0 (0 where nobody judged).
        positive: column of the document that counts as the positive, or -1.
        means, stds: one per member of the teacher: what the complete list was standardised with, so that scores of
            other documents can be put on the same scale. NaN where that member scored nothing of the list.
        masked: ``n`` bools, true where a document must not count as a negative (the teacher puts it beside or above
            the positive); empty: none is masked.
        preferences: ``[n, n]`` P(document i is better than j) of a teacher that compares; NaN where it did not.
        logits: ``[n, 2]`` both answers of a teacher that says whether a document is relevant, as (no, yes); NaN where
            it gave none.
    """

    query_id: str
    query: str
    doc_ids: tuple[str, ...]
    scores: FloatArray
    labels: FloatArray
    positive: int
    means: tuple[float, ...] = ()
    stds: tuple[float, ...] = ()
    masked: tuple[bool, ...] = ()
    preferences: FloatArray | None = None
    logits: FloatArray | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """Ranked documents for each query, by columns, so that seven million rows are three arrays.

    Query ``i`` owns the slice ``offsets[i]:offsets[i + 1]`` of ``codes`` and ``scores``, best first; ``codes`` points
    into ``vocabulary``. A query may own an empty slice: it was searched and nothing was found.
    """

    name: str
    query_ids: tuple[str, ...]
    offsets: IntArray
    vocabulary: tuple[str, ...]
    codes: NDArray[np.int32]
    scores: NDArray[np.float64]

    @classmethod
    def from_hits(cls, name: str, hits: Mapping[str, Iterable[Hit | tuple[str, float]]]) -> Run:
        """Build a run from ``{query_id: hits}``; each list is ordered by (-score, doc_id)."""
        codes_of: dict[str, int] = {}
        offsets, codes, scores = [0], [], []
        for found in hits.values():
            for doc_id, score in sorted(found, key=lambda hit: (-hit[1], hit[0])):
                codes.append(codes_of.setdefault(doc_id, len(codes_of)))
                scores.append(float(score))
            offsets.append(len(codes))
        return cls(
            name,
            tuple(hits),
            np.asarray(offsets, np.int64),
            tuple(codes_of),
            np.asarray(codes, np.int32),
            np.asarray(scores, np.float64),
        )

    def __len__(self) -> int:
        return len(self.codes)

    def __iter__(self) -> Iterator[tuple[str, list[Hit]]]:
        for row, query_id in enumerate(self.query_ids):
            yield query_id, self._row(row)

    def _row(self, row: int) -> list[Hit]:
        part = slice(self.offsets[row], self.offsets[row + 1])
        names = self.vocabulary
        pairs = zip(self.codes[part].tolist(), self.scores[part].tolist(), strict=True)
        return [Hit(names[code], score) for code, score in pairs]

    def hits(self) -> dict[str, list[Hit]]:
        """``{query_id: hits, best first}``."""
        return dict(self)

    def top(self, depth: int) -> Run:
        """The same run cut to ``depth`` documents a query."""
        lengths = np.minimum(np.diff(self.offsets), depth)
        keep = np.concatenate(
            [np.arange(s, s + n) for s, n in zip(self.offsets[:-1], lengths, strict=True)] or [np.empty(0, np.int64)]
        ).astype(np.int64)
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        return Run(self.name, self.query_ids, offsets, self.vocabulary, self.codes[keep], self.scores[keep])

    def renamed(self, name: str) -> Run:
        return Run(name, self.query_ids, self.offsets, self.vocabulary, self.codes, self.scores)

    def restricted(self, query_ids: Sequence[str]) -> Run:
        """The same run for these queries alone, in this order; a query the run lacks gets an empty list."""
        rows = {query_id: row for row, query_id in enumerate(self.query_ids)}
        return Run.from_hits(self.name, {q: self._row(rows[q]) if q in rows else [] for q in query_ids})


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a report: one engine, measured."""

    name: str
    kind: str
    """``first_stage``, ``student_before``, ``control``, ``student``, ``variant``, ``fusion`` or ``teacher``."""
    first_stage: str
    """What chose the documents: ``full collection``, or the name of the run that was re-ranked."""
    measures: Mapping[str, float]
    per_query: Mapping[str, Mapping[str, float]] = field(repr=False, default_factory=dict)
    """``{measure: {query_id: value}}``."""
    latency_ms: float | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Report:
    collection: str
    split: str
    queries: int
    rows: tuple[Row, ...]
    comparisons: tuple[Mapping[str, Any], ...] = ()
    notes: tuple[str, ...] = ()
