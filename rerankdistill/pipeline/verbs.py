"""The two verbs a user meets first: :func:`train` and :func:`evaluate` walk the whole way and skip what is fresh."""

from __future__ import annotations

import json
from pathlib import Path

from rerankdistill import devices
from rerankdistill.collections.load import load_collection
from rerankdistill.collections.work import remember
from rerankdistill.encoding import open_encoder
from rerankdistill.errors import UsageError
from rerankdistill.kinds import open_kind
from rerankdistill.pipeline.card import PipelineCard
from rerankdistill.pipeline.expect import check
from rerankdistill.pipeline.learning import arms, school, student_step
from rerankdistill.pipeline.lessons import Lessons
from rerankdistill.pipeline.proof import Proof
from rerankdistill.pipeline.step import Notes, Planned, Step, in_order, survey, walk
from rerankdistill.pipeline.workspace import Workspace, kind_options
from rerankdistill.runs.rerank import by_pairs, by_vectors, rerank
from rerankdistill.types import Run, View


def train(card: PipelineCard, out: Path, notes: Notes | None = None) -> list[Step]:
    """Train every arm of every student. Returns the steps that ran. The test judgements are never opened."""
    ws = Workspace(card, out, notes)
    steps = training_steps(ws, all_lessons(ws))
    _remember(card, out)
    return walk(steps, ws.notes)


def evaluate(card: PipelineCard, out: Path, notes: Notes | None = None) -> list[Path]:
    """Measure everything, after training what is not fresh. Returns the folders of the reports."""
    ws = Workspace(card, out, notes)
    steps = evaluation_steps(ws, all_lessons(ws))
    _remember(card, out)
    walk(steps, ws.notes)
    return [step.folder for step in steps]


def _remember(card: PipelineCard, out: Path) -> None:
    if not devices.rank():
        remember(out, card.collection, card.splits, card.view)


def hold_to_expectations(card: PipelineCard, folders: list[Path]) -> None:
    """Check what the pipeline promises of its reports. Raises ExpectationNotMet, CardError."""
    for target, folder in zip(card.evaluate, folders, strict=True):
        check(json.loads((folder / "report.json").read_text("utf-8")), target.expect, str(folder))


def plan(card: PipelineCard, out: Path, proof: bool) -> list[Planned]:
    """What :func:`train` (or :func:`evaluate`) would do, and how long it may take, without doing it."""
    ws = Workspace(card, out)
    lessons = all_lessons(ws)
    return survey(evaluation_steps(ws, lessons) if proof else training_steps(ws, lessons))


def all_lessons(ws: Workspace) -> dict[str, Lessons]:
    lessons = {name: Lessons(ws, name, student) for name, student in ws.card.students.items()}
    ws.school = school(ws, lessons)
    return lessons


def training_steps(ws: Workspace, lessons: dict[str, Lessons]) -> list[Step]:
    """The last step of every arm."""
    return [
        student_step(ws, lessons[name], arm)
        for name, student in ws.card.students.items()
        for arm in arms(name, student, ws.card.seeds)
    ]


def evaluation_steps(ws: Workspace, lessons: dict[str, Lessons]) -> list[Step]:
    """The report of every target."""
    return [Proof(ws, target, lessons).report_step() for target in ws.card.evaluate]


PARTS = {
    "index": ("index",),
    "search": ("run",),
    "candidates": ("candidates",),
    "score": ("scored",),
    "examples": ("examples",),
}
"""What each verb of a single step makes: the kinds of its products."""


def part_way(card: PipelineCard, out: Path, verb: str, notes: Notes | None = None) -> list[Path]:
    """Walk a pipeline as far as one kind of product, with all that it needs. Returns the products' folders."""
    ws = Workspace(card, out, notes)
    way = in_order([lesson.examples for lesson in all_lessons(ws).values()])
    wanted = [step for step in way if step.manifest.kind in PARTS[verb]]
    walk(wanted, ws.notes)
    return [step.folder for step in wanted]


PAIR_KINDS = ("cross_encoder", "seq2seq", "causal")
"""Kinds of re-ranker that read query and document together."""


def rerank_run(run: Run, model: str, kind: str, collection: str, split: str, depth: int, device: str = "auto") -> Run:
    """Re-rank somebody's run of a collection's split with a bi-encoder, or with a model that reads pairs.

    Raises:
        UsageError: no such kind.
        DataError: the run names queries or documents that the collection lacks.
    """
    source = load_collection(collection)
    view = View.TITLE_TEXT
    texts = {query.query_id: query.text for query in source.queries(split)}
    candidates = run.top(depth)
    name = f"{run.name} by {Path(model).name}"
    if kind in PAIR_KINDS:
        most = {"max_tokens": 512} if kind == "cross_encoder" else {}  # the others' folders say how they are read
        options = kind_options("students", kind, {"init": model, **most}, model)
        opener = open_kind("students", kind)  # a folder is opened as it is; an id, or a gguf file, by its name
        scorer = opener.open(Path(model), options, device) if Path(model).is_dir() else opener.create(options, device)
        return rerank(name, candidates, by_pairs(scorer, texts, lambda ids: source.texts(ids, view)))
    if kind != "bi_encoder":
        raise UsageError(f"no re-ranker of kind {kind!r}", fix=f"bi_encoder, {', '.join(PAIR_KINDS)}")
    encoder = open_encoder(model, device=device)
    doc_ids = sorted({candidates.vocabulary[code] for code in set(candidates.codes.tolist())})
    docs = encoder.encode(source.texts(doc_ids, view), "doc")
    queries = encoder.encode(list(texts.values()), "query")
    return rerank(name, candidates, by_vectors(list(texts), queries, doc_ids, docs))
