"""What teachers say beside a score, brought to a student's examples: comparisons of two documents, and both logits.

A student may learn from the scores of one teacher and the comparisons of another (Huang and Chen 2024, PairDistill,
arXiv:2410.01383): that one is asked about the candidates that the first puts highest, since n documents have
n (n - 1) / 2 pairs. Both logits of a yes/no question (Laitz et al. 2024, InRanker, arXiv:2401.06910) are those of the
student's own teacher.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from rerankdistill import artifacts
from rerankdistill.candidates.choose import Candidates
from rerankdistill.errors import CardError
from rerankdistill.examples.details import LOGITS, PREFERENCES, Said, with_logits, with_preferences
from rerankdistill.kinds import open_kind
from rerankdistill.losses.combine import parse
from rerankdistill.pipeline.card import StageCard, StudentCard
from rerankdistill.pipeline.lanes import read_training
from rerankdistill.pipeline.mining import Asked, Shelf, read_candidates
from rerankdistill.pipeline.step import Step
from rerankdistill.pipeline.teaching import Faculty, Member
from rerankdistill.pipeline.workspace import Workspace
from rerankdistill.scores.card import Context
from rerankdistill.types import Candidate, FloatArray

ASKED_FOR = {
    PREFERENCES: ("comparisons of two documents", "name a teacher of kind 'pairwise' in the student's preferences"),
    LOGITS: ("both logits of a yes/no question", "take a teacher of kind 'seq2seq' (two tokens) or 'causal'"),
}

SHORT = "shortlist"
"""The product that holds the candidates that are compared."""


def wanted(student: StudentCard) -> frozenset[str]:
    """Which of these signals any arm of a student learns from."""
    own = [*student.stages, *(student.control if isinstance(student.control, tuple) else ())]
    stages = [*own, *(stage for more in student.extra_controls.values() for stage in more)]
    return frozenset[str]().union(*(needs_of(stage) for stage in stages if not stage.match)) & set(ASKED_FOR)


def needs_of(stage: StageCard) -> frozenset[str]:
    """What a stage's loss cannot do without."""
    return parse(stage.loss, stage.options, lambda name: open_kind("losses", name)).needs


@dataclass(frozen=True)
class Told:
    """What a student's own teacher was asked."""

    queries: Step
    candidates: Step
    scored: Sequence[Step]


@dataclass(frozen=True)
class Source:
    """Where one signal comes from: who tells it, of which candidates, and the steps that ask.

    Attributes:
        what: ``preferences`` or ``logits``.
        at: which of the faculty's members.
        asked_of: the step whose candidates it was asked about.
        scored: the steps of all members.
    """

    what: str
    faculty: Faculty
    at: int
    asked: Asked
    asked_of: Step
    scored: Sequence[Step]

    @property
    def needs(self) -> tuple[Step, ...]:
        return (self.asked_of, *self.scored)

    @property
    def label(self) -> str:
        """What examples with this signal are called by."""
        shortened = f"-{self.asked_of.folder.name.rpartition('-')[2]}" if self.asked_of.manifest.kind == SHORT else ""
        return f"{self.what} of {self.faculty.label}{shortened}".replace(" ", "-")

    def read(self) -> dict[str, Said]:
        """For each query its documents, and what was said of them: ``[n, n]`` preferences, or ``[n, 2]`` logits as (no,
        yes)."""
        store, lists = self.faculty.stores(self.scored)[self.at], read_candidates(self.asked_of)
        groups = list(self.faculty.groups(self.asked.read(), lists, store.needs_texts))
        found: dict[str, Said] = {}
        for group, answer in zip(groups, store.answers(groups), strict=True):
            rows = _stacked(answer.details, len(group.doc_ids), 2 if self.what == LOGITS else len(group.doc_ids))
            found[group.query.query_id] = Said(group.doc_ids, rows[:, ::-1] if self.what == LOGITS else rows)
        return found

    def add(self, table: pa.Table) -> pa.Table:
        """The examples with this signal."""
        return (with_logits if self.what == LOGITS else with_preferences)(table, self.read())


def _stacked(details: Sequence[FloatArray], count: int, width: int) -> FloatArray:
    """``[count, width]``; NaN for a document of which nothing was kept."""
    rows = np.full((count, width), np.nan, np.float32)
    for row, each in zip(rows, details, strict=False):
        if len(each) == width:
            row[:] = each
    return rows


def sources(
    ws: Workspace, shelf: Shelf, name: str, student: StudentCard, faculty: Faculty, asked: Asked, told: Told
) -> list[Source]:
    """Where each signal comes from that a student learns from; none for a student of scores alone.

    Raises:
        CardError: nobody tells it.
    """
    found = []
    for what in sorted(wanted(student)):
        if what == PREFERENCES and student.preferences:
            comparer = Faculty(ws, shelf, student.preferences, seed=faculty.seed)
            at = teller(comparer, what, f"students.{name}: preferences")
            short = shortlist_step(ws, faculty, asked, told, student.preference_depth)
            found.append(Source(what, comparer, at, asked, short, comparer.scored_steps(asked, short)))
        else:
            at = teller(faculty, what, f"students.{name}")
            found.append(Source(what, faculty, at, asked, told.candidates, told.scored))
    return found


def teller(faculty: Faculty, what: str, where: str) -> int:
    """Which member of a faculty tells a signal. Raises CardError where it is not exactly one, and there alone."""
    signal, fix = ASKED_FOR[what]
    tells = [at for at, member in enumerate(faculty.members) if _details_are(member) == what]
    if len(tells) == 1 and len(faculty.members) == 1:
        return tells[0]
    if tells:
        what = f"{faculty.card.name!r} is an ensemble; {signal} are those of a single teacher"
        raise CardError(what, where=where, fix="name one of its members")
    raise CardError(f"the loss learns from {signal}, and {faculty.card.name!r} gives none", where=where, fix=fix)


def _details_are(member: Member) -> str:
    kind: Any = open_kind("scores", member.card.kind)
    if not hasattr(kind, "details_are"):
        return ""
    return str(kind.open(member.card, Context("cpu", member.base)).details_are)


def shortlist_step(ws: Workspace, faculty: Faculty, asked: Asked, told: Told, depth: int) -> Step:
    """The step that takes, of the candidates of each query that is learnt from, those that a teacher scores highest;
    judged ones come first."""
    queries, candidates, scored = told.queries, told.candidates, told.scored
    inputs = {step.name: step.fingerprint for step in (queries, candidates, *scored)}
    manifest = artifacts.plan(SHORT, 1, {"depth": depth}, inputs)
    teacher = faculty.label
    place = ws.root / "shortlists" / f"{candidates.folder.name}-{teacher}-top{depth}"
    step = Step(f"shortlist {asked.name} · {teacher}", place, manifest, (queries, candidates, *scored))

    def run(folder: Path) -> None:
        training, lists = read_training(queries), read_candidates(candidates)
        fused = faculty.fused(faculty.raw(asked, candidates, scored))
        judged = {(each.query_id, each.doc_id) for each in training.judgements if each.grade > 0}
        learned = [query.query_id for query in training.queries if query.query_id not in training.dev]
        rows = []
        for query_id in (query_id for query_id in learned if query_id in lists):
            doc_ids, scores = lists[query_id], np.nan_to_num(fused[query_id], nan=-np.inf)
            known = np.asarray([(query_id, doc_id) in judged for doc_id in doc_ids])
            best = np.lexsort((np.arange(len(doc_ids)), -scores, ~known))[:depth]
            rows += [Candidate(query_id, doc_ids[at], rank, "best") for rank, at in enumerate(best.tolist(), 1)]
        chosen = Candidates.from_rows(rows)
        chosen.save(folder)
        step.manifest.counts = {"queries": len(chosen.query_ids()), "pairs": len(chosen)}

    step.run = run
    return step
