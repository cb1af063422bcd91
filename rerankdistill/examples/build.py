"""From candidates, raw teacher scores and judgements to training examples, and their table on disk."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field

from rerankdistill.cards import Card
from rerankdistill.errors import DataError, RerankDistillWarning
from rerankdistill.examples.ensemble import Combine, Missing, fuse_quietly, fused_scale, partial_note
from rerankdistill.examples.rescale import rank_to_score
from rerankdistill.types import FloatArray, Judgement, Query, Scale

SCHEMA = pa.schema(
    [
        ("query_id", pa.string()),
        ("query", pa.string()),
        ("doc_ids", pa.list_(pa.dictionary(pa.int32(), pa.string()))),
        ("scores", pa.list_(pa.float32())),
        ("labels", pa.list_(pa.float32())),
        ("positive", pa.int32()),
        ("means", pa.list_(pa.float64())),
        ("stds", pa.list_(pa.float64())),
        ("masked", pa.list_(pa.bool_())),
    ]
)


class ExampleOptions(Card):
    """How lists become examples."""

    combine: Combine = "zscore"
    weights: tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...] | None = None
    missing: Missing = "mean"
    rank_to_score: Literal["reciprocal", "depth"] | None = None
    """Turns teachers that only order into numbers; without it losses that need numbers refuse them."""
    pseudo_positive: Literal["none", "teacher"] = "none"
    """``teacher``: in a list without a label the teacher's top document counts as the positive."""
    denoise: Annotated[float, Field(gt=0, le=1)] | None = 0.95
    """A document above this share of the positive's height over the list's lowest score is no negative."""


def example_scale(scales: Sequence[Scale], options: ExampleOptions) -> Scale:
    """The scale of the examples' scores, to be held against what a loss eats.

    Raises:
        ScaleError: the members cannot be combined this way.
    """
    return fused_scale([_converted(scale, options) for scale in scales], options.combine)


def build_examples(
    queries: Sequence[Query],
    candidates: Mapping[str, Sequence[str]],
    member_scores: Sequence[Mapping[str, FloatArray]],
    scales: Sequence[Scale],
    judgements: Iterable[Judgement],
    options: ExampleOptions | None = None,
) -> pa.Table:
    """One row per query, in the order of ``queries``; columns as in :data:`SCHEMA`.

    Args:
        candidates: ``{query_id: doc_ids}``, the complete lists.
        member_scores: for each member of the teacher ``{query_id: [n] raw scores}`` over those lists, NaN where it
            gave none.
        scales: the members' scales.
        judgements: training judgements; those of other queries or documents are not used.

    Queries without candidates are left out with a warning; lists of one candidate, without any score, or with constant
    scores are kept (their labels or other documents of a batch may teach) with a warning.

    Raises:
        DataError: no query has candidates; a list names a document twice; scores that do not fit their list.
        ScaleError: see :func:`example_scale`.
        CardError: weights that do not fit the members.
    """
    options = options or ExampleOptions()
    if not member_scores or len(member_scores) != len(scales):
        what = f"{len(member_scores)} members with scores, {len(scales)} scales"
        raise DataError(what, where="examples", fix="give one scale per member, and at least one member")
    example_scale(scales, options)
    grades = _grades(judgements, {query.query_id for query in queries})
    notes = _Notes()
    columns: dict[str, list[Any]] = {name: [] for name in SCHEMA.names}
    for query in queries:
        doc_ids = list(candidates.get(query.query_id, ()))
        if not doc_ids:
            notes.add("have no candidates and are left out", query.query_id)
            continue
        members = [_member(scores, query.query_id, doc_ids) for scores in member_scores]
        row = _row(query, doc_ids, members, scales, grades.get(query.query_id, {}), options, notes)
        for name, value in row.items():
            columns[name].append(value)
    if not columns["query_id"]:
        fix = "check that the runs were made for these queries"
        raise DataError(f"none of {len(queries)} queries has candidates", where="examples", fix=fix)
    notes.tell(len(queries), options)
    return pa.table(columns, schema=SCHEMA)


class _Notes:
    """What was odd, counted over all queries, so that each oddity is told once."""

    def __init__(self) -> None:
        self.odd: dict[str, tuple[int, str]] = {}
        self.partial = 0

    def add(self, what: str, query_id: str) -> None:
        count, first = self.odd.get(what, (0, query_id))
        self.odd[what] = (count + 1, first)

    def tell(self, total: int, options: ExampleOptions) -> None:
        lines = [f"{n} of {total} queries {what} (first: {first})" for what, (n, first) in self.odd.items()]
        if self.partial:
            lines.append(partial_note(self.partial, options.combine, options.missing))
        for line in lines:
            warnings.warn(line, RerankDistillWarning, stacklevel=3)


def _row(
    query: Query,
    doc_ids: list[str],
    members: list[NDArray[np.float64]],
    scales: Sequence[Scale],
    grades: Mapping[str, int],
    options: ExampleOptions,
    notes: _Notes,
) -> dict[str, Any]:
    """One query's row of the table."""
    if options.rank_to_score:
        pairs = zip(members, scales, strict=True)
        members = [rank_to_score(m, options.rank_to_score) if s is Scale.RANK else m for m, s in pairs]
    known = [_converted(scale, options) for scale in scales]
    fused = fuse_quietly(members, options.combine, options.weights, known, options.missing)
    notes.partial += fused.partial
    finite = fused.scores[~np.isnan(fused.scores)]
    if len(doc_ids) == 1:
        notes.add("have a list of one candidate", query.query_id)
    elif not finite.size:
        notes.add("have no teacher score", query.query_id)
    elif finite.size > 1 and finite.min() == finite.max():
        notes.add("have the same teacher score for every document", query.query_id)
    labels = np.asarray([max(grades.get(doc_id, 0), 0) for doc_id in doc_ids], np.float32)
    positive = choose_positive(fused.scores, labels, options.pseudo_positive == "teacher")
    judged = np.asarray([doc_id in grades for doc_id in doc_ids])
    return {
        "query_id": query.query_id,
        "query": query.text,
        "doc_ids": doc_ids,
        "scores": fused.scores,
        "labels": labels,
        "positive": positive,
        "means": fused.means,
        "stds": fused.stds,
        "masked": false_negatives(fused.scores, positive, options.denoise) & ~judged,
    }


def choose_positive(scores: FloatArray, labels: FloatArray, pseudo: bool) -> int:
    """The column of the best-labelled document, ties by teacher score and then by column; without a label the teacher's
    top document when ``pseudo``; else -1."""
    order = np.where(np.isnan(scores), -np.inf, scores)
    if labels.max() > 0:
        best = np.flatnonzero(labels == labels.max())
        return int(best[np.argmax(order[best])])
    return int(np.argmax(order)) if pseudo and np.isfinite(order).any() else -1


def false_negatives(scores: FloatArray, positive: int, share: float | None) -> NDArray[np.bool_]:
    """``[n]`` bool: documents that the teacher puts above ``share`` of the positive, heights counted from the list's
    lowest score: (s - min) / (s+ - min) > share. Never the positive; none where there is no positive with a score.

    Moreira et al. 2024 (NV-Retriever), arXiv:2407.15831, on scores that need not be positive.
    """
    if share is None or positive < 0 or np.isnan(scores[positive]):
        return np.zeros(len(scores), bool)
    height = np.asarray(scores, np.float64) - np.nanmin(scores)
    masked = height > share * height[positive]  # NaN compares false
    masked[positive] = False
    return np.asarray(masked)


def _converted(scale: Scale, options: ExampleOptions) -> Scale:
    """Ranks that were turned into numbers are grades made up from an order."""
    return Scale.GRADE if scale is Scale.RANK and options.rank_to_score else scale


def _grades(judgements: Iterable[Judgement], wanted: set[str]) -> dict[str, dict[str, int]]:
    grades: dict[str, dict[str, int]] = {}
    for query_id, doc_id, grade in judgements:
        if query_id in wanted:
            grades.setdefault(query_id, {})[doc_id] = grade
    return grades


def _member(scores: Mapping[str, FloatArray], query_id: str, doc_ids: list[str]) -> NDArray[np.float64]:
    """A member's scores of one list; all NaN where it knows nothing of the query."""
    where = f"query {query_id!r}"
    if len(set(doc_ids)) != len(doc_ids):
        twice = next(doc_id for doc_id in doc_ids if doc_ids.count(doc_id) > 1)
        raise DataError(f"candidate {twice!r} is listed twice", where=where, fix="make the candidates again")
    found = scores.get(query_id)
    if found is None:
        return np.full(len(doc_ids), np.nan)
    if len(found) != len(doc_ids):
        what = f"{len(found)} teacher scores for {len(doc_ids)} candidates"
        raise DataError(what, where=where, fix="score these candidates again")
    return np.asarray(found, np.float64)
