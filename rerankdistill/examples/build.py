"""From candidates, raw teacher scores and judgements to training examples, and their table on disk."""

from __future__ import annotations

import json
import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from rerankdistill.cards import Card
from rerankdistill.errors import DataError, RerankDistillWarning
from rerankdistill.examples.agreement import agreement_weights
from rerankdistill.examples.calibrate import Calibrate, Moved, calibrated_scale, centred_logit, moves
from rerankdistill.examples.ensemble import Combine, Fused, Missing, fuse_quietly, fused_scale, partial_note
from rerankdistill.examples.relabel import PRESUMED, RATE, REPLACED, relabelled
from rerankdistill.examples.rescale import Values, rank_to_score
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


FITTED = b"calibration"
"""In the metadata of the table: the numbers that were fitted, as JSON."""
YOUNGER = ("weights_by", "calibrate", "percentiles", "relabel")
"""Options that came after the first examples had been fingerprinted."""


class ExampleOptions(Card):
    """How lists become examples."""

    combine: Combine = "zscore"
    weights: tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...] | None = None
    missing: Missing = "mean"
    rank_to_score: Literal["reciprocal", "depth"] | None = None
    """Turns teachers that only order into numbers; without it losses that need numbers refuse them."""
    pseudo_positive: Literal["none", "teacher"] = "none"
    """``teacher``: in a list without a label the teacher's top document counts as the positive."""
    relabel: Literal["none", "teacher", "all"] = "none"
    """``teacher``: where the label is only presumed, the teacher's top document takes it over; ``all``: everywhere.
    See :mod:`~rerankdistill.examples.relabel`."""
    denoise: Annotated[float, Field(gt=0, le=1)] | None = 0.95
    """A document above this share of the positive's height over the list's lowest score is no negative."""
    weights_by: Literal["card", "agreement"] = "card"
    """``agreement``: the weights are multiplied by how well a member ranks the labelled documents of each query; see
    :mod:`~rerankdistill.examples.agreement`."""
    calibrate: Calibrate = "raw"
    """What becomes of the fused scores; see :mod:`~rerankdistill.examples.calibrate`."""
    percentiles: tuple[float, float] = (1.0, 99.0)
    """What ``percentile`` moves to 0 and 1."""

    @model_serializer(mode="wrap")
    def _said(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """The options beyond the defaults of younger ones: examples made before these were thought of stay fresh."""
        fields = type(self).model_fields
        table: dict[str, Any] = handler(self)
        return {k: v for k, v in table.items() if k not in YOUNGER or getattr(self, k) != fields[k].default}


def example_scale(scales: Sequence[Scale], options: ExampleOptions) -> Scale:
    """The scale of the examples' scores, to be held against what a loss eats.

    Raises:
        ScaleError: the members cannot be combined this way.
    """
    scale = fused_scale([converted(scale, options) for scale in scales], options.combine)
    if scale is Scale.RANK and options.rank_to_score:
        scale = Scale.GRADE
    return scale if options.calibrate == "two_logit" else calibrated_scale(scale, options.calibrate)


class _List(NamedTuple):
    """One query's complete list: each member's scores, made numbers of; the labels, and who was judged at all."""

    query: Query
    doc_ids: list[str]
    members: list[NDArray[np.float64]]
    labels: FloatArray
    judged: NDArray[np.bool_]


def build_examples(
    queries: Sequence[Query],
    candidates: Mapping[str, Sequence[str]],
    member_scores: Sequence[Mapping[str, FloatArray]],
    scales: Sequence[Scale],
    judgements: Iterable[Judgement],
    options: ExampleOptions | None = None,
    held_out: Collection[str] = (),
    presumed: Collection[str] = (),
) -> pa.Table:
    """One row per query, in the order of ``queries``; columns as in :data:`SCHEMA`.

    Args:
        candidates: ``{query_id: doc_ids}``, the complete lists.
        member_scores: for each member of the teacher ``{query_id: [n] raw scores}`` over those lists, NaN where it
            gave none.
        scales: the members' scales.
        judgements: training judgements; those of other queries or documents are not used.
        held_out: queries whose labels decide no weight and no temperature (those of dev), and are never replaced.
        presumed: queries whose labels nobody gave: what ``relabel`` = ``teacher`` speaks of.

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
    notes, lists = _Notes(), list[_List]()
    for query in queries:
        doc_ids = list(candidates.get(query.query_id, ()))
        if not doc_ids:
            notes.add("have no candidates and are left out", query.query_id)
            continue
        members = [_member(scores, query.query_id, doc_ids) for scores in member_scores]
        known = grades.get(query.query_id, {})
        labels = np.asarray([max(known.get(doc_id, 0), 0) for doc_id in doc_ids], np.float32)
        judged = np.asarray([doc_id in known for doc_id in doc_ids])
        lists.append(_List(query, doc_ids, numbers(members, scales, options), labels, judged))
    if not lists:
        fix = "check that the runs were made for these queries"
        raise DataError(f"none of {len(queries)} queries has candidates", where="examples", fix=fix)
    shown = [each.labels * (each.query.query_id not in held_out) for each in lists]
    fused, fitted = _fused(lists, shown, scales, options)
    moved, more = moves([each.scores for each in fused], shown, options.calibrate, options.percentiles)
    lists, replaced = _relabelled(lists, fused, options, presumed, held_out)
    more |= replaced
    columns: dict[str, list[Any]] = {name: [] for name in SCHEMA.names}
    for each, one, move in zip(lists, fused, moved, strict=True):
        for name, value in _row(each, one, move, options, notes).items():
            columns[name].append(value)
    notes.tell(len(queries), options)
    about = {FITTED: json.dumps({**fitted, **more}).encode()} if fitted or more else None
    return pa.table(columns, schema=SCHEMA.with_metadata(about))


def fitted_of(table: pa.Table) -> dict[str, float]:
    """What :func:`build_examples` fitted: ``temperature``; ``percentile_low`` and ``percentile_high``; the members'
    mean weights by agreement; and what it counted where labels might be replaced. Empty where nothing was."""
    found: dict[str, float] = json.loads((table.schema.metadata or {}).get(FITTED, b"{}"))
    return found


def _fused(
    lists: Sequence[_List], labels: Sequence[FloatArray], scales: Sequence[Scale], options: ExampleOptions
) -> tuple[list[Fused], dict[str, float]]:
    """Each list fused, and the members' mean weights where labels decide them."""
    known = [converted(scale, options) for scale in scales]
    given = np.asarray(options.weights or [1.0] * len(scales))
    weights: list[Any] = [options.weights] * len(lists)
    fitted: dict[str, float] = {}
    if options.weights_by == "agreement" and len(scales) > 1 and len(given) == len(scales):
        by_member = [[each.members[at] for each in lists] for at in range(len(scales))]
        shares, count = agreement_weights(by_member, labels)
        weights = [tuple(share * given) for share in shares]
        mean = np.mean(shares, 0)
        fitted = {f"weight_{at}": float(share) for at, share in enumerate(mean)} | {"weighted_queries": float(count)}
    fused = [
        fuse_quietly(each.members, options.combine, share, known, options.missing)
        for each, share in zip(lists, weights, strict=True)
    ]
    if options.combine == "rrf" and options.rank_to_score:
        how = options.rank_to_score
        fused = [replace(each, scores=rank_to_score(each.scores, how).astype(np.float32)) for each in fused]
    return fused, fitted


def _relabelled(
    lists: Sequence[_List],
    fused: Sequence[Fused],
    options: ExampleOptions,
    presumed: Collection[str],
    held_out: Collection[str],
) -> tuple[list[_List], dict[str, float]]:
    """The lists with the labels that they learn from, and how many were replaced. A list whose label was only presumed
    has no judged document: any may be masked."""
    if options.relabel == "none":
        return list(lists), {}
    found, asked, replaced = [], 0, 0
    for each, one in zip(lists, fused, strict=True):
        query_id = each.query.query_id
        if query_id in held_out or not (options.relabel == "all" or query_id in presumed):
            found.append(each)
            continue
        labels = relabelled(one.scores, each.labels)
        asked += bool(each.labels.max() > 0)
        replaced += labels is not None
        found.append(each if labels is None else each._replace(labels=labels, judged=np.zeros_like(each.judged)))
    return found, {PRESUMED: asked, REPLACED: replaced, RATE: round(replaced / max(asked, 1), 4)}


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


def _row(each: _List, fused: Fused, move: Moved, options: ExampleOptions, notes: _Notes) -> dict[str, Any]:
    """One query's row of the table."""
    notes.partial += fused.partial
    scores = move(fused.scores).astype(np.float32) if move != Moved() else fused.scores
    finite = scores[~np.isnan(scores)]
    if len(each.doc_ids) == 1:
        notes.add("have a list of one candidate", each.query.query_id)
    elif not finite.size:
        notes.add("have no teacher score", each.query.query_id)
    elif finite.size > 1 and finite.min() == finite.max():
        notes.add("have the same teacher score for every document", each.query.query_id)
    positive = choose_positive(fused.scores, each.labels, options.pseudo_positive == "teacher")
    return {
        "query_id": each.query.query_id,
        "query": each.query.text,
        "doc_ids": each.doc_ids,
        "scores": scores,
        "labels": each.labels,
        "positive": positive,
        "means": [mean + move.shift * std for mean, std in zip(fused.means, fused.stds, strict=True)],
        "stds": [std * move.divisor for std in fused.stds],
        "masked": false_negatives(fused.scores, positive, options.denoise) & ~each.judged,
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


def converted(scale: Scale, options: ExampleOptions) -> Scale:
    """A member's scale as it is fused: ranks that were turned into numbers are grades made up from an order."""
    if scale is Scale.RANK and options.rank_to_score and options.combine != "rrf":
        return Scale.GRADE
    return calibrated_scale(scale, "two_logit") if options.calibrate == "two_logit" else scale


def numbers(members: Sequence[Any], scales: Sequence[Scale], options: ExampleOptions) -> list[Values]:
    """The members' scores of one list, each ``[n]``, as they are fused; see :func:`converted`."""
    lists: list[Values] = [np.asarray(member, np.float64) for member in members]
    if options.calibrate == "two_logit":
        return [centred_logit(member) for member in lists]
    how = options.rank_to_score
    if not how or options.combine == "rrf":
        return lists
    return [rank_to_score(m, how) if s is Scale.RANK else m for m, s in zip(lists, scales, strict=True)]


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
