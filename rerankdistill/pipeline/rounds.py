"""Rounds: before a later stage, the student as it is looks for candidates anew, and the teacher scores what is new.

A student that learns from fixed candidates is never told about the documents that it alone would find. So ANCE (Xiong
et al. 2021, arXiv:2007.00808), PairDistill (Huang, Chen 2024, arXiv:2410.01383) and LLM-R (Wang, Yang, Wei 2024,
arXiv:2307.07164) mine with the student that they have, and go on from its weights. Each arm and seed mines with
itself, the control too. The examples are made anew over the complete lists: scores of two rounds are never compared.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rerankdistill import artifacts
from rerankdistill.candidates.choose import Candidates, choose
from rerankdistill.candidates.judged import add_judged
from rerankdistill.errors import CardError
from rerankdistill.kinds import open_kind
from rerankdistill.pipeline.card import StageCard, StudentCard
from rerankdistill.pipeline.mining import Asked, Shelf, read_run, run_step
from rerankdistill.pipeline.step import Step
from rerankdistill.pipeline.vectors import Model
from rerankdistill.pipeline.workspace import Workspace
from rerankdistill.types import Judgement

FIRST = "first"
"""The source of a candidate that was there before."""


@dataclass(frozen=True)
class Round:
    """Who mines anew: ``label`` names it by its arm, stage and seed. ``keep`` the first candidates, or not."""

    label: str
    model: Model
    depth: int
    keep: bool


def require_miner(student: StudentCard, where: str) -> None:
    """Raises CardError for a student that cannot search a collection by one vector a text."""
    kind = open_kind("students", student.kind)
    if kind.layout != "batch":
        what = f"a student of kind {student.kind!r} reads pairs and finds nothing itself"
        raise CardError(what, where=where, fix="leave out remine: it re-ranks what others find")
    if hasattr(kind, "index_card"):
        what = f"a student of kind {student.kind!r} has an index of its own, which nothing is mined with"
        raise CardError(what, where=where, fix="leave out remine")


def remined_step(
    ws: Workspace,
    shelf: Shelf,
    asked: Asked,
    how: Round,
    first: Step,
    judged: Callable[[], Sequence[Judgement]],
) -> Step:
    """The step that puts what the student finds to the first candidates, or in their place; judged ones stay.

    Its manifest counts how many candidates are ``new``.
    """
    mined = run_step(ws, shelf, "flat", asked, how.depth, how.model, how.label)
    inputs = {"first": first.fingerprint, "mined": mined.fingerprint, "queries": asked.mark}
    manifest = artifacts.plan("candidates", 1, {"keep": how.keep, "depth": how.depth}, inputs)
    name = f"{asked.name}-{how.label}"
    step = Step(f"candidates {name}", ws.root / "candidates" / name, manifest, (mined, first, *asked.needs))

    def run(folder: Path) -> None:
        queries = [query.query_id for query in asked.read()]
        before, found = Candidates.open(first.require()), read_run(mined)
        deepest = max([how.depth, *(len(doc_ids) for _, doc_ids in before.groups())])
        runs = [found.top(how.depth), *([before.to_run(FIRST)] if how.keep else [])]
        chosen = add_judged(choose(runs, deepest, query_ids=queries), judged(), query_ids=queries)
        chosen.save(folder)
        known = {query_id: set(doc_ids) for query_id, doc_ids in before.groups()}
        new = sum(len(set(doc_ids) - known.get(query_id, set())) for query_id, doc_ids in chosen.groups())
        step.manifest.counts = {"queries": len(chosen.query_ids()), "pairs": len(chosen), "new": new}
        ws.notes.say(f"candidates {name}: {new:,} of {len(chosen):,} are new")

    step.run = run
    return step


def control_rounds(
    stages: Sequence[StageCard], labels_only: Callable[[StageCard, int], StageCard]
) -> tuple[StageCard, ...]:
    """The stages of a control that learns from labels alone: one a round, in as many steps as the round takes.

    Args:
        labels_only: a stage and its steps to that stage without a teacher.
    """
    rounds: list[list[StageCard]] = []
    for stage in stages:
        if stage.remine or not rounds:
            rounds.append([])
        rounds[-1].append(stage)
    on_lists = [stage for stage in stages if not stage.match] or list(stages)
    found = []
    for each in rounds:
        pattern = ([stage for stage in each if not stage.match] or on_lists[:1])[-1]
        mines = {name: getattr(each[0], name) for name in ("remine", "remine_depth", "remine_keep")}
        labels = labels_only(pattern, sum(stage.train.steps for stage in each))
        found.append(labels.model_copy(update=mines))
    return tuple(found)
