"""The teacher check before training: a step that leaves findings, and the gate that every taught stage goes through.

It looks at the teacher itself, on dev (and training) queries alone, also where an arm is taught its scores shuffled.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rerankdistill import artifacts
from rerankdistill.artifacts import write_text
from rerankdistill.errors import ExpectationNotMet, RerankDistillError
from rerankdistill.evaluation.teacher_check import Evidence, check
from rerankdistill.evaluation.teacher_verdict import verdict
from rerankdistill.examples.table import open_examples
from rerankdistill.kinds import open_kind
from rerankdistill.pipeline.inspection import answering, choose_queries, scores_of, text_lengths, vector_rows
from rerankdistill.pipeline.lanes import Training, read_training
from rerankdistill.pipeline.lessons import Lessons
from rerankdistill.pipeline.mining import read_run
from rerankdistill.pipeline.step import Notes, Step
from rerankdistill.pipeline.workspace import Workspace
from rerankdistill.types import Example, FloatArray, Judgement, Query

FILE = "check.json"
KIND = "teacher check"
SPARED = frozenset({"one-hot"})
"""Grave faults that training is not refused for: a teacher that is no more than labels may be good ones."""
FEW = 50
"""Dev queries below which training queries join them: so many it takes for a paired test to see much."""
STUDENT_QUERIES = 100
"""Queries that the student before training is measured on: its encoding is all that the check costs."""
TO_KNOW_A_COPY = 20
"""As many as that where there are no labels to measure it by: so few show whether the teacher is a copy of it."""


def check_step(ws: Workspace, lessons: Lessons, tau: float | None, options: Any, initial: str) -> Step:
    """The step that measures a student's teacher on the candidates that the student will learn from.

    Args:
        lessons: of the student's first stage that learns from the teacher's scores.
        tau: what that stage divides them by; None where its losses have no temperature.
        options: of the student's kind; ``initial`` is the fingerprint of the model it starts from.
    """
    faculty, how = lessons.faculty, ws.card.check
    about = {
        "queries": how.queries,
        "depth": how.depth,
        "tau": tau,
        "student": {"kind": lessons.student.kind, **options.model_dump(mode="json")},
    }
    needs = (lessons.queries, lessons.candidates, lessons.examples)
    inputs = {step.name: step.fingerprint for step in needs} | {"initial model": initial}
    manifest = artifacts.plan(KIND, 2, about, inputs, ws.card.seed)
    name = f"teacher check {lessons.label} · {faculty.label}"
    step = Step(name, ws.root / "checks" / lessons.label, manifest, (*needs, *lessons.doc_vectors))

    def run(folder: Path) -> None:
        findings = check(_evidence(ws, lessons, tau, options), ws.card.seed)
        told = verdict(findings)
        refused = any(fault.grave and fault.name not in SPARED for fault in told.faults)
        found = {"teacher": faculty.name, "student": lessons.name, "verdict": told.words, "grade": told.grade,
                 "faults": list(told.names), "refused": refused, "findings": findings.as_dict()}  # fmt: skip
        write_text(folder / FILE, json.dumps(found, indent=1))
        figures = {"queries": findings.queries, "ndcg@10": findings.ndcg, "first stage": findings.ndcg_first,
                   "student": findings.ndcg_student, "verdict": told.words}  # fmt: skip
        manifest.counts = {key: value for key, value in figures.items() if value is not None}

    step.run = run
    return step


def hold(step: Step, force: bool, notes: Notes) -> None:
    """Let nobody learn from a teacher that is not to be distilled.

    Raises ExpectationNotMet, with what was found; with ``force`` it is only said.
    """
    found = json.loads((step.require() / FILE).read_text("utf-8"))
    if not found["refused"]:
        return
    if force:
        notes.say(f"teacher {found['teacher']}: {found['verdict']}; it is distilled all the same (force)")
        return
    fix = f"choose another teacher; the figures are in {step.folder / FILE}; --force trains on it all the same"
    raise ExpectationNotMet(f"{found['verdict']}", where=f"teacher {found['teacher']}", fix=fix)


def _evidence(ws: Workspace, lessons: Lessons, tau: float | None, options: Any) -> Evidence:
    training, faculty = read_training(lessons.queries), lessons.faculty
    queries, judgements = _asked(ws, lessons, training)
    examples = open_examples(lessons.examples.require())
    at = {query_id: row for row, query_id in enumerate(examples.query_ids)}
    found = {q.query_id: examples[at[q.query_id]] for q in queries if q.query_id in at}
    kept = {q: _shallow(each, ws.card.check.depth) for q, each in found.items()}
    doc_ids = {q: [found[q].doc_ids[column] for column in columns] for q, columns in kept.items()}
    rows = {q: found[q].scores[columns] for q, columns in kept.items()}
    mined = next(step for step in lessons.candidates.needs if step.manifest.kind == "run")
    first = scores_of(read_run(mined), doc_ids)
    most = STUDENT_QUERIES if judgements else TO_KNOW_A_COPY
    student = _student_rows(ws, lessons, queries, doc_ids, options, most)
    lengths = text_lengths(doc_ids, lessons.shelf)
    shares = answering(faculty.stores(lessons.scored))
    return Evidence(doc_ids, rows, faculty.scale, judgements, first, student, lengths, tau=tau, **shares)


def _asked(ws: Workspace, lessons: Lessons, training: Training) -> tuple[list[Query], list[Judgement]]:
    """The queries to look at, dev first, and their judgements. Pseudo queries have none: that a title finds its own
    document says little of a teacher."""
    judged = "train" in lessons.lane.sets
    real = {query.query_id for query in ws.source().queries("train")} if judged else None
    seed, most = ws.card.seed, ws.card.check.queries
    chosen = choose_queries([query for query in training.queries if query.query_id in training.dev], most, seed)
    if len(chosen) < min(FEW, most):
        learned = [query for query in training.queries if query.query_id not in training.dev]
        others = learned if real is None else [query for query in learned if query.query_id in real]
        chosen += choose_queries(others, most - len(chosen), seed)
    if not judged:
        return chosen, []
    wanted = {query.query_id for query in chosen}
    return chosen, [judgement for judgement in training.judgements if judgement.query_id in wanted]


def _shallow(example: Example, depth: int) -> list[int]:
    """The columns of a list that are looked at: relevant documents first, then the best mined ones."""
    return sorted(range(len(example.doc_ids)), key=lambda column: (example.labels[column] <= 0, column))[:depth]


def _student_rows(
    ws: Workspace,
    lessons: Lessons,
    queries: Sequence[Query],
    lists: Mapping[str, Sequence[str]],
    options: Any,
    most: int,
) -> dict[str, FloatArray]:
    """What the student says of some lists before it is taught anything; nothing for one that reads pairs, which says
    nothing yet, or that cannot be opened, which training will tell."""
    kind: Any = open_kind("students", lessons.student.kind)
    asked = [query for query in queries if query.query_id in lists][:most]
    if getattr(kind, "layout", "") != "batch" or hasattr(kind, "start") or not asked:
        return {}  # one that begins with documents begins as its teacher, but for their codes
    try:
        encoder = kind.create(options, ws.card.device).encoder()
        with ws.notes.bar("the student before training ranks dev", len(asked)) as advance:
            rows = vector_rows(encoder, asked, lists, lessons.shelf, lessons.known_documents())
            advance(len(asked))
    except RerankDistillError:
        return {}
    return rows
