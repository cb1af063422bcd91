"""Everything that answers test queries, as steps that leave runs: students before and after, fusions, teachers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rerankdistill import artifacts
from rerankdistill.evaluation.cost import latency
from rerankdistill.index.build import open_index
from rerankdistill.kinds import open_kind
from rerankdistill.pipeline.card import StudentCard
from rerankdistill.pipeline.learning import student_options
from rerankdistill.pipeline.mining import TIMED, Asked, Shelf, read_candidates, read_run
from rerankdistill.pipeline.step import Step
from rerankdistill.pipeline.teaching import Faculty
from rerankdistill.pipeline.vectors import Model, by_encoder, read_vectors, vectors_step
from rerankdistill.pipeline.workspace import Workspace
from rerankdistill.runs.fuse import zscore_sum
from rerankdistill.runs.rerank import ScoreGroups, by_pairs, by_vectors, rerank
from rerankdistill.runs.store import save_run
from rerankdistill.types import Hit, Run


@dataclass(frozen=True)
class Engine:
    """One row to be: its name, kind and first stage in the report, and the step that leaves its run."""

    name: str
    kind: str
    first_stage: str
    run: Step
    latency_of: tuple[Step, ...]
    """The runs whose latencies add up to this engine's."""
    extra: dict[str, Any] = field(default_factory=dict)
    model: Model | None = None
    student: Path | None = None
    """The folder of the student behind it, whose model card gets the figures."""
    index: Step | None = None
    """The index of its own that it searches, where its documents are kept in codes."""


@dataclass(frozen=True)
class Weight:
    """How much the second of two runs counts beside the first: what decides it, and how to read it."""

    mark: str
    read: Callable[[], float]
    needs: tuple[Step, ...] = ()


def untrained_step(
    ws: Workspace, name: str, card: StudentCard, documents: tuple[Step, ...] = (), reader: Model | None = None
) -> Step:
    """The step that saves a student as it is before training.

    Args:
        documents: vectors that it may begin with.
        reader: who reads documents for it, where that is another model.
    """
    options = student_options(name, card)
    kind = open_kind("students", card.kind)
    about = {"kind": card.kind, **options.model_dump(mode="json")}
    inputs = {"initial model": kind.source_fingerprint(options)} | {each.name: each.fingerprint for each in documents}
    if reader:
        inputs[artifacts.READER] = reader.mark
    manifest = artifacts.plan("student", 1, about, inputs, ws.card.seed)
    step = Step(f"student {name} before", ws.root / "students" / f"{name}.before", manifest, documents)

    def run(folder: Path) -> None:
        import torch

        torch.manual_seed(ws.card.seed)
        student = kind.create(options, "cpu")
        for vectors in documents:
            student.start(read_vectors(vectors)[1])
        student.save(folder)

    step.run = run
    return step


def _run_place(ws: Workspace, shelf: Shelf, asked: Asked, label: str) -> Path:
    return ws.root / "runs" / asked.name / shelf.place(label)


def vector_rerank_step(
    ws: Workspace, shelf: Shelf, asked: Asked, first: Step, depth: int, model: Model, label: str
) -> Step:
    """The step that orders a first stage's candidates by a bi-encoder; only candidates are encoded."""
    inputs = {"first stage": first.fingerprint, "model": model.mark}
    manifest = artifacts.plan("run", 1, {"rerank": depth, "view": shelf.view.value}, inputs)
    place = _run_place(ws, shelf, asked, label)
    step = Step(f"run {label} · {asked.name}", place, manifest, (first, *model.needs, *asked.needs))

    def run(folder: Path) -> None:
        queries = list(asked.read())
        candidates = read_run(first).top(depth)
        doc_ids = sorted({candidates.vocabulary[code] for code in set(candidates.codes.tolist())})
        with ws.notes.bar(f"encoding candidates with {label}", len(doc_ids)) as advance:
            docs = model.encode(ws, shelf.source.texts(doc_ids, shelf.view), "doc", advance)
        vectors = model.encode(ws, [query.text for query in queries], "query", lambda _: None)
        scorer = by_encoder(model.open(ws), [query.query_id for query in queries], vectors, doc_ids, docs)
        save_run(folder, rerank(label, candidates.restricted([q.query_id for q in queries]), scorer))

    step.run = run
    return step


def pair_rerank_step(
    ws: Workspace,
    shelf: Shelf,
    asked: Asked,
    first: Step,
    depth: int,
    name: str,
    card: StudentCard,
    student: Step,
    label: str,
) -> Step:
    """The step that orders a first stage's candidates by a cross-encoder student."""
    options = student_options(name, card)
    inputs = {"first stage": first.fingerprint, "student": student.fingerprint}
    manifest = artifacts.plan("run", 1, {"rerank": depth, "view": shelf.view.value}, inputs)
    place = _run_place(ws, shelf, asked, label)
    step = Step(f"run {label} · {asked.name}", place, manifest, (first, student, *asked.needs))

    def run(folder: Path) -> None:
        texts = {query.query_id: query.text for query in asked.read()}
        scorer = open_kind("students", card.kind).open(student.require(), options, ws.card.device)
        candidates = read_run(first).top(depth).restricted(list(texts))
        groups = by_pairs(scorer, texts, lambda doc_ids: shelf.source.texts(doc_ids, shelf.view))
        with ws.notes.bar(f"re-ranking with {label}", len(texts)) as advance:
            save_run(folder, rerank(label, candidates, groups, progress=advance))
        lists = [(query_id, [hit.doc_id for hit in hits]) for query_id, hits in candidates.top(depth) if hits]
        spent = latency(lambda asked_one: groups([asked_one]), lists[: TIMED // 6], warmup=1, repeats=1)
        step.manifest.counts = {"queries": len(texts), "latency_ms": round(spent.p50, 3)}

    step.run = run
    return step


def fusion_step(
    ws: Workspace, shelf: Shelf, asked: Asked, pair: tuple[Step, Step], depth: int, label: str,
    complete: Callable[[], Sequence[ScoreGroups | None]] | None = None, needs: tuple[Step, ...] = (),
    weight: Weight | None = None,
) -> Step:  # fmt: skip
    """The step that fuses two runs: z-scored sum over the union of their top ``depth``.

    Args:
        weight: of the second run's scores; None: both count alike.
    """
    inputs = {"first": pair[0].fingerprint, "second": pair[1].fingerprint} | ({"weight": weight.mark} if weight else {})
    manifest = artifacts.plan("run", 1, {"fuse": depth, "complete": complete is not None}, inputs)
    place = _run_place(ws, shelf, asked, label)
    step = Step(f"run {label} · {asked.name}", place, manifest, (*pair, *needs, *(weight.needs if weight else ())))

    def run(folder: Path) -> None:
        fillers = complete() if complete else None
        weights = [1.0, weight.read()] if weight else None
        save_run(folder, zscore_sum([read_run(one) for one in pair], depth, weights, fillers, label))

    step.run = run
    return step


def lexical_filler(ws: Workspace, asked: Asked, index: Step) -> ScoreGroups:
    """BM25 of any document, to complete a fusion."""
    opened: Any = open_index(index.require(), open_kind("index", "bm25"), ws.card.device)
    texts = {query.query_id: query.text for query in asked.read()}
    rows = {doc_id: row for row, doc_id in enumerate(opened.ids.names)}
    return lambda groups: [
        opened.lexical.matrix([texts[query_id]], [rows[doc_id] for doc_id in doc_ids])[0]
        for query_id, doc_ids in groups
    ]


def vector_filler(ws: Workspace, shelf: Shelf, asked: Asked, model: Model) -> ScoreGroups:
    """A bi-encoder's similarity of any document, to complete a fusion."""
    doc_ids, docs = read_vectors(vectors_step(ws, model, shelf.docs))
    queries = list(asked.read())
    vectors = model.encode(ws, [query.text for query in queries], "query", lambda _: None)
    return by_vectors([query.query_id for query in queries], vectors, doc_ids, docs)


def teacher_step(ws: Workspace, faculty: Faculty, asked: Asked, candidates: Step, label: str) -> Step:
    """The step that orders candidates by a teacher: the reference that students are held against."""
    scored = faculty.scored_steps(asked, candidates)
    inputs = {step.name: step.fingerprint for step in scored}
    about = faculty.card.model_dump(mode="json", include={"combine", "weights", "rank_to_score", "calibrate"})
    manifest = artifacts.plan("run", 1, {"teacher": faculty.name, **about}, inputs)
    place = _run_place(ws, faculty.shelf, asked, label)
    step = Step(f"run {label} · {asked.name}", place, manifest, (*scored, candidates))

    def run(folder: Path) -> None:
        fused = faculty.fused(faculty.raw(asked, candidates, scored))
        lists = read_candidates(candidates)
        hits = {
            query_id: [Hit(d, float(s)) for d, s in zip(lists[query_id], scores, strict=True) if s == s]  # no NaN
            for query_id, scores in fused.items()
        }
        save_run(folder, Run.from_hits(label, hits))

    step.run = run
    return step
