"""A teacher's findings in words: good, usable with …, do not distil: …

Every fault is named, the gravest first. A *grave* one means that distilling it is wasted or harmful; the others say
what to change. Tests decide where chance may have a hand in it; what they cannot decide is not held against a teacher.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from rerankdistill.evaluation.teacher_check import Findings, Gap
from rerankdistill.types import Scale

Grade = Literal["good", "usable", "do not distil"]

LEVEL = 0.05
"""Of the paired tests."""
CERTAIN = 0.01
"""Of the tests that a teacher is turned round: a claim that grave wants more."""
ENOUGH = 10
"""Judged queries without which nothing is said that rests on a test: a t-test over fewer sees only the glaring."""
NEARLY_ALL = 0.9
"""Share of the lists that must show what a teacher is called after (a constant, a copy, a length, a single spike)."""
MANY = 0.5
"""Share of nearly one-hot lists from which a temperature is too low: most of the targets are then mere labels."""
SOME = 0.05
"""Share of constant lists, or of pairs without an answer, that is worth a word."""
NEAR_CHANCE = 0.25
"""A teacher is called random where even the upper end of its interval is not this far from chance to the best order."""
TURNED = 0.2
"""Share of lists in clear contradiction from which a part of the queries counts as reversed; luck gives one in ten."""
DECIDED = 0.6
"""And so many lists must be clear, for or against: a teacher that is weak rather than turned is clear on few."""
AGAINST_FIRST = -0.2
"""Mean Kendall tau-b with the first stage from which, for want of labels, a teacher counts as reversed: rankers of all
kinds agree with BM25's order to some degree, and the weakest of them do not contradict it."""
UNLIKE = 0.05
"""A tau with first stage or student below this is none."""
TIED = 0.5
"""Share of tied pairs from which a teacher is coarse: half of what could be learnt of the order is not said."""
LEANS = 0.6
"""Mean rank correlation with length that is worth a word: length explains a third of the order."""
STEADY = 0.7
"""Kendall tau-b of a list with the same list asked in another order, below which the order of asking has a say."""
FLIPS = 0.25
"""Share of pairs decided otherwise when swapped: half of it is coin-tossing by a teacher that cannot decide."""

UNREAD = 0.5
"""Share of answers that could not be read from which what is left is the order that the teacher was given."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing found. ``name`` is stable; ``words`` continue "it …" or "usable with …"."""

    name: str
    grave: bool
    words: str


@dataclass(frozen=True, slots=True)
class Verdict:
    grade: Grade
    words: str
    faults: tuple[Fault, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(fault.name for fault in self.faults)


def verdict(findings: Findings) -> Verdict:
    """The findings in words."""
    found = [fault for look in LOOKS if (fault := look(findings)) is not None]
    grave = [fault for fault in found if fault.grave]
    mild = [fault for fault in found if not fault.grave]
    if grave:
        mild = [fault for fault in mild if fault.name != "unjudged"]  # there is enough against it without labels
        also = f" (also: {'; '.join(fault.words for fault in mild)})" if mild else ""
        return Verdict("do not distil", f"do not distil: {'; '.join(f.words for f in grave)}{also}", (*grave, *mild))
    if mild:
        return Verdict("usable", f"usable with {'; '.join(fault.words for fault in mild)}", tuple(mild))
    return Verdict("good", "good")


def _constant(f: Findings) -> Fault | None:
    if f.constant is None:
        return Fault("no lists", True, "it scored no two documents of any list")
    if f.constant >= NEARLY_ALL:
        return Fault("constant", True, f"it is constant (in {_percent(f.constant)} of the lists all scores are equal)")
    return None


def _reversed(f: Findings) -> Fault | None:
    if _dull(f):
        return None
    if f.judged >= ENOUGH and f.over_reversed is not None:
        gap = f.over_reversed
        if gap.difference < 0 and gap.p < CERTAIN and f.strong_against > f.strong_for:
            what = f"it is reversed (nDCG@10 {_n(f.ndcg)}, with its scores negated {_n(f.ndcg_reversed)})"
            return Fault("reversed", True, what)
        return None
    if f.first_tau is not None and f.first_tau < AGAINST_FIRST and (f.first_p or 0.0) < CERTAIN:
        return Fault(
            "reversed", True, f"it is reversed (its order contradicts the first stage's, tau {f.first_tau:.2f})"
        )
    return None


def _reversed_in_part(f: Findings) -> Fault | None:
    if _dull(f) or _reversed(f) or f.agreement_queries < 2 * ENOUGH:
        return None
    clear = f.strong_for + f.strong_against
    if f.strong_against < TURNED or f.strong_for < TURNED / 2 or clear < DECIDED:
        return None
    share = f.strong_against / clear
    what = f"it is reversed on {_percent(share)} of the queries (judged by the {f.agrees_with})"
    return Fault("reversed in part", True, what)


def _random(f: Findings) -> Fault | None:
    if _dull(f) or _reversed(f) or _reversed_in_part(f) or _length(f):
        return None  # what it is instead has been said
    gap = f.over_chance
    if f.judged >= 2 * ENOUGH and gap is not None and f.ndcg_ideal is not None and f.ndcg_chance is not None:
        room = f.ndcg_ideal - f.ndcg_chance
        above = gap.difference > 0 and gap.p < LEVEL
        if room > 0 and not above and (gap.high or 0.0) < NEAR_CHANCE * room:
            what = f"it is random (nDCG@10 {_n(f.ndcg)}, where shuffled candidates read {_n(f.ndcg_chance)})"
            return Fault("random", True, what)
        return None
    known = [tau for tau in (f.first_tau, f.student_tau) if tau is not None]
    if not f.judged and known and f.queries >= 2 * ENOUGH and all(abs(tau) < UNLIKE for tau in known):
        what = "a look at labelled queries first (it agrees with neither first stage nor student, as chance would)"
        return Fault("perhaps random", False, what)
    return None


def _length(f: Findings) -> Fault | None:
    if _dull(f) or f.length_rho is None or f.length_same is None:
        return None
    which = "long" if f.length_rho > 0 else "short"
    if f.length_same >= NEARLY_ALL:
        return Fault("length", True, f"it is a function of length ({which} texts first in {_percent(f.length_same)})")
    if abs(f.length_rho) >= LEANS:
        what = f"texts cut to one length (it leans on length: {which} ones first, rank correlation {f.length_rho:.2f})"
        return Fault("leans on length", False, what)
    return None


def _copy(f: Findings) -> Fault | None:
    if f.student_same is None or f.student_same < NEARLY_ALL:
        return None
    what = (
        f"it is a copy of the student (the same order in {_percent(f.student_same)} of the lists): it teaches nothing"
    )
    return Fault("copy", True, what)


def _below_the_student(f: Findings) -> Fault | None:
    if f.judged < ENOUGH or f.over_student is None or _copy(f) or _dull(f):
        return None
    gap = f.over_student
    figures = f"nDCG@10 {_n((f.ndcg_student or 0.0) + gap.difference)} against {_n(f.ndcg_student)}"
    if gap.difference < 0 and gap.p < LEVEL:
        return Fault("below the student", True, f"it ranks below the student ({figures}, {_p(gap)})")
    if gap.difference <= 0:
        return Fault("not above the student", False, f"little hope (it ranks no better than the student: {figures})")
    return None


def _one_hot(f: Findings) -> Fault | None:
    if _dull(f):
        return None
    if f.spiked is not None and f.spiked >= NEARLY_ALL:
        what = "it is one-hot (all documents but the first score alike, at any temperature): a label says as much"
        return Fault("one-hot", True, what)
    if f.one_hot is not None and f.one_hot >= MANY and f.mild is not None:
        unit = "" if f.unit == "raw" else " list deviations"
        what = (
            f"tau_teacher about {f.mild:g}{unit} (at {f.tau:g} {_percent(f.one_hot)} of the lists are nearly one-hot)"
        )
        return Fault("nearly one-hot", False, what)
    return None


def _ranks(f: Findings) -> Fault | None:
    if f.scale != Scale.RANK:
        return None
    return Fault("ranks only", False, "ranknet (it gives ranks only, whose differences mean nothing)")


def _below_the_first_stage(f: Findings) -> Fault | None:
    if _dull(f) or f.judged < ENOUGH or f.over_first is None or f.over_first.difference >= 0 or f.over_first.p >= LEVEL:
        return None
    what = f"the first stage in an ensemble card (alone it ranks below it: {_n(f.ndcg)} against {_n(f.ndcg_first)})"
    return Fault("below the first stage", False, what)


def _unsteady(f: Findings) -> Fault | None:
    if f.order_tau is not None and f.order_tau < STEADY:
        what = f"several orders averaged (asked in another order it answers otherwise, tau {f.order_tau:.2f})"
        return Fault("unsteady", False, what)
    if f.flips is not None and f.flips > FLIPS:
        what = f"both positions averaged (swapped, {_percent(f.flips)} of the pairs are decided otherwise)"
        return Fault("unsteady", False, what)
    return None


def _unread(f: Findings) -> Fault | None:
    if f.unread is None or f.unread < UNREAD:
        return None
    what = f"it does not answer what it is asked (nothing could be read from {_percent(f.unread)} of its answers)"
    return Fault("unread", True, what)


def _malformed(f: Findings) -> Fault | None:
    if f.malformed is None or f.malformed < SOME or _unread(f):
        return None
    return Fault("malformed answers", False, f"care ({_percent(f.malformed)} of its answers are malformed)")


def _gaps(f: Findings) -> Fault | None:
    if f.unanswered < SOME:
        return None
    return Fault("gaps", False, f"care (it has no score for {_percent(f.unanswered)} of the pairs)")


def _coarse(f: Findings) -> Fault | None:
    if _dull(f) or _grave_one_hot(f):
        return None
    if f.constant is not None and f.constant >= SOME:
        return Fault("constant lists", False, f"fewer lists ({_percent(f.constant)} of them have one score only)")
    if f.ties is not None and f.ties >= TIED:
        return Fault("ties", False, f"a finer teacher beside it ({_percent(f.ties)} of the pairs are tied)")
    return None


def _unjudged(f: Findings) -> Fault | None:
    if f.judged:
        return None
    return Fault("unjudged", False, "care (nothing speaks against it, but no label speaks for it)")


def _dull(f: Findings) -> bool:
    """Whether the lists have no order that anything could be said of."""
    return f.constant is None or f.constant >= NEARLY_ALL


def _grave_one_hot(f: Findings) -> bool:
    return f.spiked is not None and f.spiked >= NEARLY_ALL


def _n(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _p(gap: Gap) -> str:
    return "p < 0.001" if gap.p < 0.001 else f"p = {gap.p:.3f}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


LOOKS: tuple[Callable[[Findings], Fault | None], ...] = (
    _constant,
    _unread,
    _reversed,
    _random,
    _reversed_in_part,
    _length,
    _copy,
    _one_hot,
    _below_the_student,
    _ranks,
    _below_the_first_stage,
    _unsteady,
    _malformed,
    _gaps,
    _coarse,
    _unjudged,
)
"""Every fault there is, the gravest first."""
