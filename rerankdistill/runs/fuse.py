"""Fuse runs: one list for each query out of several.

Both ways look at each run's best ``depth`` documents and return the union of them, so a fused list may be longer than
``depth``; :meth:`Run.top` cuts it. A query that some run lacks is fused from the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from rerankdistill.errors import UsageError
from rerankdistill.runs.columns import Columns, in_batches
from rerankdistill.runs.rerank import ScoreGroups
from rerankdistill.types import Hit, Run

BATCH = 32
Lists = list[dict[str, float]]
"""For one query, each run's ``{doc_id: score}``, best first."""


def reciprocal_rank(runs: Sequence[Run], k: float = 60, depth: int = 1000, name: str = "rrf") -> Run:
    """Sum of 1 / (k + rank) over the runs that hold the document, rank from 1.

    Cormack, Clarke and Büttcher, "Reciprocal rank fusion outperforms Condorcet and individual rank learning methods",
    SIGIR 2009. Equal scores inside a run are ranked by doc_id.
    """
    _check(runs, depth)
    columns = Columns(name)
    for query_id, lists in _lists(runs, depth):
        total: dict[str, float] = {}
        for hits in lists:
            for rank, doc_id in enumerate(hits, 1):
                total[doc_id] = total.get(doc_id, 0.0) + 1 / (k + rank)
        columns.add(query_id, total.items())
    return columns.run()


def zscore_sum(
    runs: Sequence[Run],
    depth: int = 1000,
    weights: Sequence[float] | None = None,
    complete: Sequence[ScoreGroups | None] | None = None,
    name: str = "zscore",
) -> Run:
    """Weighted sum of each run's z-scores, taken query by query.

    Args:
        weights: one for each run; 1 where not given.
        complete: one for each run, or None. It scores the documents that the other runs found and this one lacks, on
            the run's own scale, and z-scores are then taken over the complete union. Without it they are taken over
            the run's own list (population standard deviation), and a document that the list lacks gets the list's
            lowest: all that is known of it is that it would come later.

    A list of equal scores, or an empty one, has nothing to say: its z-scores are 0.
    """
    _check(runs, depth, weights, complete)
    shares = [1.0] * len(runs) if weights is None else list(weights)
    fillers = [None] * len(runs) if complete is None else list(complete)
    columns = Columns(name)
    for part in in_batches(_lists(runs, depth), BATCH):
        unions = [
            (query_id, list(dict.fromkeys(doc_id for hits in lists for doc_id in hits))) for query_id, lists in part
        ]
        for number, filler in enumerate(fillers):
            if filler is not None:
                _fill(filler, unions, [lists[number] for _, lists in part])
        for (query_id, union), (_, lists) in zip(unions, part, strict=True):
            total = sum(
                (w * _standardised(hits, union) for w, hits in zip(shares, lists, strict=True)), np.zeros(len(union))
            )
            columns.add(query_id, zip(union, total.tolist(), strict=True))
    return columns.run()


def zscores(scores: Sequence[float]) -> NDArray[np.float64]:
    """``[n]`` (score - mean) / population standard deviation; zeros when all scores are equal."""
    values = np.asarray(scores, np.float64)
    if not len(values) or values.min() == values.max():
        return np.zeros(len(values))
    spread: NDArray[np.float64] = (values - values.mean()) / values.std()
    return spread


def _standardised(hits: Mapping[str, float], union: Sequence[str]) -> NDArray[np.float64]:
    """``[len(union)]`` z-scores of one run's list."""
    known = dict(zip(hits, zscores(list(hits.values())), strict=True))
    lowest = min(known.values(), default=0.0)
    return np.asarray([known.get(doc_id, lowest) for doc_id in union], np.float64)


def _fill(filler: ScoreGroups, unions: Sequence[tuple[str, list[str]]], lists: Lists) -> None:
    """Complete each list with the scores of the documents it lacks."""
    lacking = [
        [doc_id for doc_id in union if doc_id not in hits] for (_, union), hits in zip(unions, lists, strict=True)
    ]
    asked = [(query_id, doc_ids) for (query_id, _), doc_ids in zip(unions, lacking, strict=True)]
    for doc_ids, hits, scores in zip(lacking, lists, filler(asked), strict=True):
        hits.update(zip(doc_ids, map(float, scores), strict=True))


def _lists(runs: Sequence[Run], depth: int) -> Iterator[tuple[str, Lists]]:
    """Every query that any run knows, in the order of first sight, with each run's best documents."""
    rows = [{query_id: row for row, query_id in enumerate(run.query_ids)} for run in runs]
    for query_id in dict.fromkeys(query_id for run in runs for query_id in run.query_ids):
        yield query_id, [dict(_top(run, at.get(query_id), depth)) for run, at in zip(runs, rows, strict=True)]


def _top(run: Run, row: int | None, depth: int) -> list[Hit]:
    if row is None:
        return []
    start, end = int(run.offsets[row]), int(run.offsets[row + 1])
    part = slice(start, min(end, start + depth))
    pairs = zip(run.codes[part].tolist(), run.scores[part].tolist(), strict=True)
    return [Hit(run.vocabulary[code], score) for code, score in pairs]


def _check(runs: Sequence[Run], depth: int, *per_run: Sequence[object] | None) -> None:
    if not runs:
        raise UsageError("no runs to fuse", fix="name at least one run")
    if depth < 1:
        raise UsageError(f"a depth of {depth} leaves nothing to fuse", fix="give a depth of at least 1")
    for values in per_run:
        if values is not None and len(values) != len(runs):
            raise UsageError(
                f"{len(values)} values for {len(runs)} runs", where="weights or complete", fix="give one for each run"
            )
