"""A teacher at test time: it reads what a student found for a query, moves the query's vector, and the student searches
again (:mod:`rerankdistill.runs.refine`). Beside it stands what the same reading is worth as a plain re-ranking.

Neither is a distilled student: the teacher is asked about every test query, and its time is part of the row's latency.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from rerankdistill import artifacts, devices
from rerankdistill.errors import CardError
from rerankdistill.evaluation.cost import latency
from rerankdistill.examples.rescale import check_scale
from rerankdistill.index.build import open_index
from rerankdistill.kinds import open_kind
from rerankdistill.losses.combine import Weighted, parse
from rerankdistill.pipeline.card import RefineCard, RefineRound, StudentCard
from rerankdistill.pipeline.engines import Engine, teacher_step
from rerankdistill.pipeline.mining import TIMED, Asked, Shelf, candidates_step, index_step, read_candidates
from rerankdistill.pipeline.step import Step
from rerankdistill.pipeline.teaching import Faculty, fused_as
from rerankdistill.pipeline.vectors import Model, by_id, vectors_step
from rerankdistill.pipeline.workspace import Workspace
from rerankdistill.runs.refine import refine_query
from rerankdistill.runs.search import search
from rerankdistill.runs.store import save_run
from rerankdistill.types import FloatArray, Query

KIND = "test_time"
"""The kind of row that needs a teacher at test time."""
NOTE = (
    "Rows called reranked and refined ask a teacher at test time: it reads the first documents of every test query, "
    "and its time is in the refined row's ms/query."
)
KNOWN = frozenset({"student", "teacher"})
"""What a loss may look at: at test time nobody has labels."""


@dataclass(frozen=True)
class Descent:
    """One round: who is followed, by which loss, and how far."""

    faculty: Faculty
    loss: Weighted
    how: RefineRound


def refined_engines(
    ws: Workspace, shelf: Shelf, asked: Asked, own: Engine, name: str, card: StudentCard, seed: int, depth: int
) -> list[Engine]:
    """The rows of a student with a teacher at test time: its first documents re-ranked, and its query refined.

    Args:
        own: the student's row; ``depth`` of its search.

    Raises:
        CardError, ScaleError: the student has no query vector; a loss that cannot follow the teacher without labels.
    """
    how = card.refine
    if how is None:
        return []
    if own.model is None or own.index is not None:
        what = f"a student of kind {card.kind!r} has no query vector whose documents are vectors"
        raise CardError(what, where=f"students.{name}", fix="leave refine out")
    file = own.run.folder.name
    read = candidates_step(ws, asked, [own.run], how.depth, name=f"{asked.name}-of-{file}-top{how.depth}")
    descents = _descents(ws, shelf, how, card, name, seed)
    last = descents[-1].faculty
    reranked = teacher_step(ws, last, asked, read, f"{file}+reranked")
    refined = Refined(ws, shelf, asked, own, own.model, read, descents).step(f"{file}+refined", depth)
    who = {"test_time_teacher": ", ".join(dict.fromkeys(each.faculty.label for each in descents))}
    stage = f"{name} top {how.depth}"
    return [
        Engine(f"{name} reranked", KIND, stage, reranked, (), {"test_time_teacher": last.label}),
        Engine(f"{name} refined", KIND, f"{stage}, then again", refined, (own.run, refined), who),
    ]


def _descents(ws: Workspace, shelf: Shelf, how: RefineCard, card: StudentCard, name: str, seed: int) -> list[Descent]:
    faculties: dict[str, Faculty] = {}
    found = []
    for each in how.rounds:
        teacher = each.teacher or how.teacher or card.teacher or ws.card.teacher
        faculty = faculties.setdefault(teacher, Faculty(ws, shelf, teacher, seed=seed))
        loss = parse(each.loss, each.options, lambda kind: open_kind("losses", kind))
        if more := loss.needs - KNOWN:
            what = f"{each.loss} needs {', '.join(sorted(more))}, which nobody has at test time"
            raise CardError(what, where=f"students.{name}: refine", fix="use kl_div, or ranknet with weights = 'ranks'")
        check_scale(loss.eats, faculty.scale, each.loss)
        found.append(Descent(faculty, loss, each))
    return found


@dataclass(frozen=True)
class Refined:
    """A second search with refined queries."""

    ws: Workspace
    shelf: Shelf
    asked: Asked
    own: Engine
    model: Model
    read: Step
    descents: Sequence[Descent]

    @cached_property
    def scored(self) -> dict[str, list[Step]]:
        """For each teacher the steps that have asked it."""
        teachers = {each.faculty.name: each.faculty for each in self.descents}
        return {name: faculty.scored_steps(self.asked, self.read) for name, faculty in teachers.items()}

    @cached_property
    def vectors(self) -> Step:
        return vectors_step(self.ws, self.model, self.shelf.docs)

    def step(self, label: str, depth: int) -> Step:
        """The step that searches again; it times what a query costs from the first search on."""
        index = index_step(self.ws, self.shelf, "flat", self.model)
        steps = [step for steps in self.scored.values() for step in steps]
        inputs = {step.name: step.fingerprint for step in (self.read, index, *steps)}
        inputs["query encoder"] = self.model.mark
        rounds = [{**each.how.model_dump(mode="json"), "fused": fused_as(each.faculty.card).model_dump(mode="json")}
                  for each in self.descents]  # fmt: skip
        manifest = artifacts.plan("run", 1, {"depth": depth, "rounds": rounds}, inputs)
        place = self.ws.root / "runs" / self.asked.name / self.shelf.place(label)
        needs = (index, self.vectors, self.read, *steps, *self.model.needs, *self.asked.needs)
        step = Step(f"run {self.shelf.place(label)} · {self.asked.name}", place, manifest, needs)

        def run(folder: Path) -> None:
            engine: Any = open_index(index.require(), open_kind("index", "flat"), self.ws.card.device)
            lists = read_candidates(self.read)
            queries = [query for query in self.asked.read() if query.query_id in lists]
            said = {each.faculty.name: self._said(each.faculty) for each in self.descents}
            with self.ws.notes.bar(f"refining queries of {self.own.name}", len(queries)) as advance:
                moved = self.refine(queries, lists, said)
                save_run(folder, search(label, engine, queries, moved, depth, advance))

            def again(query: Query) -> object:
                return engine.search(self.refine([query], lists, self._asked_now(query, lists)), depth)

            spent = latency(again, queries[: TIMED // 6], warmup=1, repeats=1)
            step.manifest.counts = {"queries": len(queries), "latency_ms": round(spent.p50, 3)}

        step.run = run
        return step

    def _said(self, faculty: Faculty) -> dict[str, FloatArray]:
        """A teacher's scores of every query's documents."""
        return faculty.fused(faculty.raw(self.asked, self.read, self.scored[faculty.name]))

    def _asked_now(self, query: Query, lists: Mapping[str, list[str]]) -> dict[str, dict[str, FloatArray]]:
        """What the teachers say when they are asked anew, past their stores."""
        found = {}
        for faculty in {each.faculty.name: each.faculty for each in self.descents}.values():
            raw = []
            for teacher in map(faculty.open, faculty.members):
                answers = teacher.judge(list(faculty.groups([query], dict(lists), teacher.needs_texts)))
                raw.append({query.query_id: getattr(answers[0], "scores", answers[0])})
            found[faculty.name] = faculty.fused(raw)
        return found

    def refine(
        self, queries: Sequence[Query], lists: Mapping[str, list[str]], said: Mapping[str, Mapping[str, FloatArray]]
    ) -> FloatArray:
        """``[q, d]`` the queries' vectors after every round."""
        vectors = self.model.encode(self.ws, [query.text for query in queries], "query", lambda _: None)
        docs = [self._docs(lists[query.query_id]) for query in queries]
        device = devices.choose(self.ws.card.device).name
        for each in self.descents:
            scores = [said[each.faculty.name][query.query_id] for query in queries]
            vectors = refine_query(vectors, docs, scores, each.loss, each.how.steps, each.how.learning_rate, device)
        return vectors

    @cached_property
    def _docs(self) -> Any:
        return by_id(self.vectors)
