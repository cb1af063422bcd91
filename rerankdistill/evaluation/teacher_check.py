"""What a teacher's scores say of themselves, beside the labels, the first stage and the student-to-be.

Everything is measured on the same candidates: nDCG@10 and paired tests, how flat or peaked the lists are as targets,
and what the scores may be in truth: a constant, chance, an order turned round, a text's length, the student's own.
:mod:`rerankdistill.evaluation.teacher_verdict` puts it into words.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rerankdistill.errors import DataError
from rerankdistill.evaluation.compare import compare_two, t_test
from rerankdistill.evaluation.lists import (
    agreement,
    highest_probability,
    kendall,
    log_softmax,
    mild_temperature,
    signs_over_chance,
    spearman,
    standard,
)
from rerankdistill.evaluation.measure import Judgements, measure, read_judgements
from rerankdistill.types import Run, Scale

Values = NDArray[np.float64]
Rows = Mapping[str, Any]
"""``{query_id: [n]}``: a number for each candidate of a query; NaN where there is none."""

MEASURE = "ndcg@10"
SHUFFLES = 16
"""Orders that chance is the mean of: its own error is then a quarter of one query's."""
ONE_HOT = 0.99
"""A list whose largest probability is above this says no more than a label (as in ``examples``)."""
SPIKED = 0.02
"""All documents but the top ones lie within this share of the list's range: no temperature tells them apart."""
TOP = 10
"""One document in so many may be a top one (at least one): passages that stand twice in a collection share the top."""
LONG_ENOUGH = 5
"""In shorter lists two orders are alike by luck: five documents agree by chance once in 120."""
SAME = 0.95
"""Two orders with this rank correlation are one: of 20 documents' 190 pairs not five differ, as rounding makes them."""
STRONG = 1.28
"""An agreement so many of chance's standard deviations from nought: one list in ten on either side, were it luck. One
relevant document among 20 reaches 1.65 at most, so more cannot be asked of a single list."""
NATURAL = frozenset({Scale.LOGIT, Scale.LOGPROB, Scale.ZSCORE})
"""Scales with a unit of their own, whose listwise target is commonly taken at temperature 1. Others are put into units
of each list's standard deviation first."""


@dataclass(frozen=True)
class Evidence:
    """What a check looks at.

    Attributes:
        doc_ids: each query's candidates; every ``Rows`` is aligned with them.
        teacher: its scores (of an ensemble, the fused ones), higher is better, on ``scale``.
        judgements: of the split that is looked at; empty where nobody judged.
        first, student: scores of the first stage and of the student before training; empty where unknown.
        lengths: of the texts, in any unit.
        again: the teacher's scores of some lists that were put to it in another order, in the order of ``doc_ids``.
        flips: of pairs that were asked about in both positions, the share decided otherwise when swapped.
        malformed: the share of its answers that were not what was asked for; ``unread``: that said nothing at all.
        others: other teachers' scores by their names.
        tau: the temperature of the listwise target; None: what is usual for the scale (see :data:`NATURAL`).
    """

    doc_ids: Mapping[str, Sequence[str]]
    teacher: Rows
    scale: Scale
    judgements: Judgements = ()
    first: Rows = field(default_factory=dict)
    student: Rows = field(default_factory=dict)
    lengths: Rows = field(default_factory=dict)
    again: Rows = field(default_factory=dict)
    flips: float | None = None
    malformed: float | None = None
    unread: float | None = None
    others: Mapping[str, Rows] = field(default_factory=dict)
    tau: float | None = None


@dataclass(frozen=True, slots=True)
class Gap:
    """The mean of teacher - other over the judged queries, its 95 % interval and paired t-test."""

    difference: float
    low: float | None
    high: float | None
    p: float


@dataclass(frozen=True, slots=True)
class Findings:
    """What was measured. Shares are of the lists that could show it; None: it could not be measured.

    Attributes:
        queries, pairs: looked at; ``judged``: queries of these with a relevant candidate or judgement.
        unanswered: share of the pairs without a score.
        ndcg…: nDCG@10 of the same candidates in the order of the teacher, its scores negated, the first stage, the
            student, chance, and the labels.
        over…: the teacher against each.
        tau: the temperature of ``entropy`` (mean, as a share of the largest possible), ``max_probability`` (mean) and
            ``one_hot`` (share of lists); ``unit`` is ``raw`` or ``list deviation``.
        mild: the temperature at which the mean largest probability is one half.
        spiked: share of lists whose documents are all alike but the top ones.
        constant: share of lists in which every document scores the same.
        ties: share of pairs of a list with equal scores.
        agrees_with: what ``strong_for`` and ``strong_against`` (shares of lists in clear agreement and contradiction)
            were counted against: ``labels`` or ``first stage``; ``agreement_queries`` could show it.
        first_tau, student_tau: mean Kendall tau-b; ``first_p``: of the t-test that the first is nought.
        student_same: share of lists in the student's order.
        length_rho: mean rank correlation with length; ``length_same``: share of lists ordered by length alone, the
            same way round.
        order_tau: mean Kendall tau-b of a list and the same list put in another order; ``flips``: share of pairs
            decided otherwise when swapped; ``malformed``, ``unread``: shares of its answers that were
            not what was asked for, or said nothing.
        taus: mean Kendall tau-b with other teachers.
    """

    scale: str
    queries: int
    pairs: int
    judged: int
    unanswered: float
    ndcg: float | None = None
    ndcg_reversed: float | None = None
    ndcg_first: float | None = None
    ndcg_student: float | None = None
    ndcg_chance: float | None = None
    ndcg_ideal: float | None = None
    over_reversed: Gap | None = None
    over_first: Gap | None = None
    over_student: Gap | None = None
    over_chance: Gap | None = None
    tau: float = 1.0
    unit: str = "raw"
    entropy: float | None = None
    max_probability: float | None = None
    one_hot: float | None = None
    mild: float | None = None
    spiked: float | None = None
    constant: float | None = None
    ties: float | None = None
    agrees_with: str = ""
    agreement_queries: int = 0
    strong_for: float = 0.0
    strong_against: float = 0.0
    first_tau: float | None = None
    first_p: float | None = None
    student_tau: float | None = None
    student_same: float | None = None
    length_rho: float | None = None
    length_same: float | None = None
    order_tau: float | None = None
    flips: float | None = None
    malformed: float | None = None
    unread: float | None = None
    taus: Mapping[str, float] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def check(evidence: Evidence, seed: int = 0) -> Findings:
    """Measure a teacher. ``seed`` decides the shuffled orders that stand for chance.

    Raises DataError for no lists, or rows of another length than the candidates.
    """
    lists = _aligned(evidence, evidence.teacher, "the teacher")
    if not lists:
        raise DataError("the teacher scored no list of candidates", fix="look at the run and the collection's queries")
    scored = np.concatenate(list(lists.values()))
    about: dict[str, Any] = {
        "scale": str(evidence.scale),
        "queries": len(lists),
        "pairs": len(scored),
        "unanswered": float(np.isnan(scored).mean()) if len(scored) else 0.0,
    }
    about |= _shape(list(lists.values()), evidence.scale, evidence.tau)
    grades = _grades(evidence)
    about |= _effectiveness(evidence, lists, grades, seed)
    about |= _agreement(evidence, lists, grades)
    about |= _likeness(evidence, lists)
    about |= _consistency(evidence, lists)
    return Findings(**about)


def _aligned(evidence: Evidence, rows: Rows, whose: str) -> dict[str, Values]:
    """The rows as float64, of the queries that have candidates and a row."""
    found = {}
    for query_id, doc_ids in evidence.doc_ids.items():
        if query_id not in rows or not len(doc_ids):
            continue
        row = np.asarray(rows[query_id], np.float64)
        if row.shape != (len(doc_ids),):
            what = f"{whose} has {row.size} scores for {len(doc_ids)} candidates"
            raise DataError(what, where=f"query {query_id!r}")
        if np.isinf(row).any():
            raise DataError(f"{whose} has an infinite score", where=f"query {query_id!r}", fix="score it again")
        found[query_id] = row
    return found


def _grades(evidence: Evidence) -> dict[str, dict[str, int]]:
    """The judgements of queries that have candidates and at least one relevant document."""
    grades = read_judgements(evidence.judgements)
    wanted = evidence.doc_ids
    return {q: judged for q, judged in grades.items() if q in wanted and max(judged.values(), default=0) > 0}


def _shape(lists: Sequence[Values], scale: Scale, tau: float | None) -> dict[str, Any]:
    """How flat or peaked the lists are, as targets and in themselves."""
    known = [row[~np.isnan(row)] for row in lists]
    known = [row for row in known if len(row) > 1]
    if not known:
        return {}
    constant = [not standard(row).any() for row in known]
    pairs = [(len(row) * (len(row) - 1), int((row[:, None] == row[None, :]).sum()) - len(row)) for row in known]
    alive = [row for row, flat in zip(known, constant, strict=True) if not flat]
    raw = tau is not None or scale in NATURAL
    at = tau or 1.0
    targets = [row if raw else standard(row) for row in known]
    logs = [log_softmax(row / at) for row in targets]
    highest = highest_probability(targets, at)
    long = [row for row in alive if len(row) > 2]
    return {
        "tau": at,
        "unit": "raw" if raw else "list deviation",
        "entropy": _mean(-(np.exp(each) * each).sum() / np.log(len(each)) for each in logs),
        "max_probability": float(highest.mean()),
        "one_hot": float((highest > ONE_HOT).mean()),
        "mild": mild_temperature([row for row in targets if np.ptp(row) > 0]),
        "spiked": _mean(_spiked(row) for row in long),
        "constant": float(np.mean(constant)),
        "ties": sum(tied for _, tied in pairs) / sum(every for every, _ in pairs),
    }


def _spiked(row: Values) -> bool:
    ordered = np.sort(row)
    rest = ordered[: -max(1, len(row) // TOP)]
    return bool(rest[-1] - rest[0] <= SPIKED * (ordered[-1] - ordered[0]))


def _effectiveness(
    evidence: Evidence, lists: Mapping[str, Values], grades: Mapping[str, Mapping[str, int]], seed: int
) -> dict[str, Any]:
    """nDCG@10 of every order of the same candidates, and the paired tests."""
    judged = [query_id for query_id in grades if query_id in lists]
    if not judged:
        return {"judged": 0}
    doc_ids = evidence.doc_ids
    generator = np.random.default_rng(seed)

    def per_query(rows: Mapping[str, Values]) -> dict[str, float]:
        hits = {q: zip(doc_ids[q], _answered(rows[q]), strict=True) for q in judged if q in rows}
        return measure(Run.from_hits("candidates", hits), grades, (MEASURE,), judged).per_query[MEASURE]

    shuffled = [
        per_query({q: generator.permutation(len(doc_ids[q])).astype(np.float64) for q in judged})
        for _ in range(SHUFFLES)
    ]
    teacher = per_query(lists)
    columns = {
        "reversed": per_query({q: -lists[q] for q in judged}),
        "chance": {q: float(np.mean([each[q] for each in shuffled])) for q in judged},
        "ideal": per_query({q: np.array([float(grades[q].get(d, 0)) for d in doc_ids[q]]) for q in judged}),
    }
    for name, rows in (("first", evidence.first), ("student", evidence.student)):
        if found := _aligned(evidence, rows, f"the {name}"):
            columns[name] = per_query(found)
    about: dict[str, Any] = {"judged": len(judged), "ndcg": _mean(teacher.values())}
    for name, values in columns.items():
        known = _of_the_same(evidence, name, judged)
        about[f"ndcg_{name}"] = _mean(values[q] for q in known)
        if name != "ideal":
            about[f"over_{name}"] = _gap({q: teacher[q] for q in known}, {q: values[q] for q in known})
    return about


def _of_the_same(evidence: Evidence, name: str, judged: Sequence[str]) -> list[str]:
    """The judged queries on which the teacher can be held against a column: a student may know only some."""
    rows = {"first": evidence.first, "student": evidence.student}.get(name)
    return [query_id for query_id in judged if rows is None or query_id in rows]


def _answered(row: Values) -> list[float]:
    """Scores of a list; what has none stands below all that have one."""
    if np.isnan(row).all():
        return [0.0] * len(row)
    floor = float(np.nanmin(row)) - max(1.0, float(np.nanmax(row) - np.nanmin(row)))
    return [float(value) for value in np.where(np.isnan(row), floor, row)]


def _gap(system: Mapping[str, float], baseline: Mapping[str, float]) -> Gap | None:
    if not system:
        return None
    found = compare_two(system, baseline, rounds=1)
    return Gap(found.difference, found.low, found.high, found.p)


def _agreement(
    evidence: Evidence, lists: Mapping[str, Values], grades: Mapping[str, Mapping[str, int]]
) -> dict[str, Any]:
    """How many lists the teacher orders clearly with, and against, the labels (without any: the first stage)."""
    labels = {q: np.array([float(grades[q].get(d, 0)) for d in evidence.doc_ids[q]]) for q in grades if q in lists}
    for name, rows in (("labels", labels), ("first stage", _aligned(evidence, evidence.first, "the first stage"))):
        found = [signs_over_chance(lists[q], rows[q]) for q in rows if q in lists]
        values = np.array([value for value in found if value is not None])
        if len(values):
            return {
                "agrees_with": name,
                "agreement_queries": len(values),
                "strong_for": float((values >= STRONG).mean()),
                "strong_against": float((values <= -STRONG).mean()),
            }
    return {}


def _likeness(evidence: Evidence, lists: Mapping[str, Values]) -> dict[str, Any]:
    """What the order resembles: the first stage's, the student's, that of the lengths, other teachers'."""
    about: dict[str, Any] = {}
    first = agreement(lists, _aligned(evidence, evidence.first, "the first stage"))
    if len(first):
        about |= {"first_tau": float(first.mean()), "first_p": t_test(first)}
    student = _aligned(evidence, evidence.student, "the student")
    if student:
        about["student_tau"] = _mean(agreement(lists, student))
        about["student_same"] = _mean(_same_order(kendall(lists[q], student[q])) for q in _long(lists, student))
    lengths = _aligned(evidence, evidence.lengths, "the texts")
    found = [spearman(lists[q], lengths[q]) for q in _long(lists, lengths)]
    rhos = np.array([rho for rho in found if rho is not None])
    if len(rhos):
        about["length_rho"] = float(rhos.mean())
        about["length_same"] = float(max((rhos >= SAME).mean(), (rhos <= -SAME).mean()))
    about["taus"] = {
        name: value
        for name, rows in evidence.others.items()
        if (value := _mean(agreement(lists, _aligned(evidence, rows, name)))) is not None
    }
    return about


def _same_order(tau: float | None) -> bool:
    """Whether two lists are in one order; a list without any order is in nobody's."""
    return tau is not None and tau >= SAME


def _long(lists: Mapping[str, Values], other: Mapping[str, Values]) -> list[str]:
    return [q for q, row in lists.items() if q in other and (~np.isnan(row)).sum() >= LONG_ENOUGH]


def _consistency(evidence: Evidence, lists: Mapping[str, Values]) -> dict[str, Any]:
    """Whether the teacher says the same when the same is asked in another order."""
    order_tau = _mean(agreement(lists, _aligned(evidence, evidence.again, "the second time")))
    told = {name: getattr(evidence, name) for name in ("flips", "malformed", "unread")}
    return {"order_tau": order_tau, **told}


def _mean(values: Iterable[Any]) -> float | None:
    found = [float(value) for value in values]
    return float(np.mean(found)) if found else None
