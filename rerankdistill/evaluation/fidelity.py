"""How much of the teacher the student kept: its order, its first choice, its top ten, and its gain."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from rerankdistill.errors import DataError
from rerankdistill.types import Hit, Run


@dataclass(frozen=True, slots=True)
class Fidelity:
    """Means over the queries for which the teacher ranks at least one document.

    Attributes:
        tau: Kendall's tau-b between the two orders of the teacher's top ``depth``, over ``tau_queries`` queries (the
            others have fewer than two documents, or a teacher that cannot tell them apart); None without any. A
            document that the student does not list stands below all that it does; a student that cannot tell the
            documents apart has tau 0.
        top1: share of queries on which both put the same document first.
        overlap: mean share of the teacher's top ``depth`` in the student's top ``depth``.
    """

    depth: int
    queries: int
    tau: float | None
    tau_queries: int
    top1: float
    overlap: float


def fidelity(student: Run, teacher: Run, depth: int = 10, query_ids: Iterable[str] | None = None) -> Fidelity:
    """Compare a student's run with its teacher's.

    Raises DataError when the teacher ranks nothing for these queries.
    """
    wanted = set(teacher.query_ids if query_ids is None else query_ids)
    best = {query_id: hits for query_id, hits in teacher.top(depth) if hits and query_id in wanted}
    if not best:
        raise DataError("the teacher ranks no document for these queries", where=teacher.name)
    taus, same, shared = [], 0, 0.0
    found = {query_id: hits for query_id, hits in student if query_id in best}
    for query_id, ranked in best.items():
        ours = found.get(query_id, [])
        tau = _tau(ranked, ours)
        if tau is not None:
            taus.append(tau)
        same += bool(ours) and ours[0].doc_id == ranked[0].doc_id
        shared += len({hit.doc_id for hit in ranked} & {hit.doc_id for hit in ours[:depth]}) / len(ranked)
    tau_mean = float(np.mean(taus)) if taus else None
    return Fidelity(depth, len(best), tau_mean, len(taus), same / len(best), shared / len(best))


def share_of_gain(before: float, after: float, teacher: float) -> float | None:
    """(after - before) / (teacher - before): 1 when the student reaches the teacher, negative when it got worse.

    None when the teacher is not above where the student began: there is nothing to have a share of.
    """
    gain = teacher - before
    return (after - before) / gain if gain > 1e-9 else None


def _tau(best: list[Hit], found: list[Hit]) -> float | None:
    scores = {hit.doc_id: hit.score for hit in found}
    floor = min(scores.values(), default=0.0) - 1.0
    ours = [scores.get(hit.doc_id, floor) for hit in best]
    theirs = [hit.score for hit in best]
    if len(set(theirs)) < 2:
        return None
    if len(set(ours)) < 2:
        return 0.0
    from scipy.stats import kendalltau

    return float(kendalltau(ours, theirs).statistic)
