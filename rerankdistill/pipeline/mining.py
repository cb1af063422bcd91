"""Indexes, runs and candidates as steps, for training lanes and for test queries alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rerankdistill import artifacts
from rerankdistill.candidates.choose import Candidates, choose
from rerankdistill.candidates.judged import add_judged
from rerankdistill.contracts import Source
from rerankdistill.errors import CardError, DataError
from rerankdistill.evaluation.cost import latency
from rerankdistill.index.build import fill_index, index_kind, open_index, plan_index, read_card
from rerankdistill.kinds import open_kind
from rerankdistill.pipeline.step import Step
from rerankdistill.pipeline.vectors import Model, Texts, docs_of, read_vectors, vectors_step
from rerankdistill.pipeline.workspace import Workspace
from rerankdistill.runs.search import search
from rerankdistill.runs.store import open_run, save_run
from rerankdistill.types import Judgement, Query, Run, View

TIMED = 30
"""Queries that the latency of an engine is measured on, one at a time."""


@dataclass(frozen=True)
class Asked:
    """Queries as steps know them: what decides them, and how to read them once the steps before have run."""

    name: str
    mark: str
    read: Callable[[], Sequence[Query]]
    needs: tuple[Step, ...] = ()


@dataclass(frozen=True)
class Shelf:
    """Where the indexes of one collection and view go: ``label`` is empty for the pipeline's own collection."""

    source: Source
    view: View
    label: str = ""

    @property
    def docs(self) -> Texts:
        """Every document, as texts to encode."""
        return docs_of(self.source, self.view, self.place("docs"))

    def place(self, name: str) -> str:
        view = "" if self.view is View.TITLE_TEXT else f"-{self.view.value}"
        return f"{self.label}{'-' if self.label else ''}{name}{view}"


def index_step(ws: Workspace, shelf: Shelf, name: str, model: Model | None = None) -> Step:
    """The step that builds an index by its card; one that holds vectors is filled by ``model``."""
    card = read_card(name).model_copy(update={"view": shelf.view})
    kind = open_kind("index", card.kind)
    inputs = {"docs": shelf.source.docs_fingerprint()}
    vectors: Step | None = None
    stem = Path(name).stem
    if kind.accepts == "vectors":
        if model is None:
            raise ValueError(f"index {name!r} needs a model")
        vectors = vectors_step(ws, model, shelf.docs)
        inputs["encoder"] = model.reader.mark
        stem = f"{stem}-{model.reader.name}"
    elif kind.accepts != "texts":
        what = f"only the student that an index of kind {card.kind!r} belongs to can fill it"
        raise CardError(what, where=f"index {name!r}", fix="mine and begin with bm25, or with a dense index")
    place = ws.root / "indexes" / shelf.place(stem)
    needs = (vectors,) if vectors else ()
    step = Step(f"index {shelf.place(stem)}", place, plan_index(card, inputs, kind), needs)

    def run(folder: Path) -> None:
        ids, content = read_vectors(vectors) if vectors else _texts(shelf)
        step.manifest.counts = fill_index(folder, card, ids, content, kind, ws.card.device)

    step.run = run
    return step


def _texts(shelf: Shelf) -> tuple[list[str], list[str]]:
    pairs = [(doc.doc_id, doc.view(shelf.view)) for doc in shelf.source.docs()]
    return [doc_id for doc_id, _ in pairs], [text for _, text in pairs]


def run_step(
    ws: Workspace,
    shelf: Shelf,
    name: str,
    asked: Asked,
    depth: int,
    model: Model | None = None,
    label: str = "",
    index: Step | None = None,
) -> Step:
    """The step that searches an index with queries; measures the latency of one query at a time on the way.

    Args:
        name: the index's card; with ``index``, the step that builds it, the card is not looked for.
    """
    dense = model is not None if index else is_dense(name)
    index = index or index_step(ws, shelf, name, model)
    called = label or Path(name).stem
    inputs = {"index": index.fingerprint, "queries": asked.mark}
    if model is not None and model.docs is not None:
        inputs["query encoder"] = model.mark
    manifest = artifacts.plan("run", 1, {"depth": depth}, inputs)
    place = ws.root / "runs" / asked.name / shelf.place(called)
    encodes = model.needs if model is not None and model.docs is not None else ()
    step = Step(f"run {shelf.place(called)} · {asked.name}", place, manifest, (index, *encodes, *asked.needs))

    def run(folder: Path) -> None:
        queries = list(asked.read())
        engine = open_index(index.require(), open_kind("index", index_kind(index.folder)), ws.card.device)
        encode: Callable[[Sequence[str]], Any] = list
        if dense and model is not None:
            encode = lambda texts: model.encode(ws, texts, "query", lambda _: None)  # noqa: E731
        texts = [query.text for query in queries]
        content = model.encode_queries(ws, texts) if dense and model is not None else texts
        with ws.notes.bar(f"searching {shelf.place(called)}", len(queries)) as advance:
            found = search(called, engine, queries, content, depth, advance)
        save_run(folder, found)
        spent = latency(lambda text: engine.search(encode([text]), depth), texts[:TIMED], warmup=3, repeats=1)
        step.manifest.counts = {"queries": len(queries), "hits": len(found), "latency_ms": round(spent.p50, 3)}

    step.run = run
    return step


def given_run_step(ws: Workspace, shelf: Shelf, name: str, split: str, label: str) -> Step:
    """The step that takes over a run that comes with the collection."""
    offered = shelf.source.runs(split)
    if name not in offered:
        fix = f"it has: {', '.join(offered) or 'none'}"
        raise DataError(f"no run of split {split!r} is called {name!r}", where=shelf.source.name, fix=fix)
    given = offered[name]
    arrays = (given.offsets.tobytes(), given.codes.tobytes(), given.scores.tobytes())
    mark = artifacts.fingerprint(given.query_ids, given.vocabulary, *arrays)
    manifest = artifacts.plan("run", 1, {"given": name, "split": split}, {"run": mark})
    place = ws.root / "runs" / label / shelf.place(name)
    step = Step(f"run {shelf.place(name)} · {label}", place, manifest)

    def run(folder: Path) -> None:
        found = given.renamed(name)
        save_run(folder, found)
        step.manifest.counts = {"queries": len(found.query_ids), "hits": len(found)}

    step.run = run
    return step


def read_run(step: Step) -> Run:
    return open_run(step.require())


def candidates_step(
    ws: Workspace,
    asked: Asked,
    runs: Sequence[Step],
    depth: int,
    judged: Callable[[], Sequence[Judgement]] | None = None,
    name: str = "",
) -> Step:
    """The step that merges runs; ``judged`` documents of training queries are added."""
    inputs = {run.name: run.fingerprint for run in runs} | {"queries": asked.mark}
    manifest = artifacts.plan("candidates", 1, {"depth": depth, "judged": judged is not None}, inputs)
    place = ws.root / "candidates" / (name or asked.name)
    step = Step(f"candidates {name or asked.name}", place, manifest, (*runs, *asked.needs))

    def run(folder: Path) -> None:
        queries = [query.query_id for query in asked.read()]
        chosen = choose([read_run(run) for run in runs], depth, query_ids=queries)
        if judged:
            chosen = add_judged(chosen, judged(), query_ids=queries)
        chosen.save(folder)
        step.manifest.counts = {"queries": len(chosen.query_ids()), "pairs": len(chosen)}

    step.run = run
    return step


def read_candidates(step: Step) -> dict[str, list[str]]:
    return dict(Candidates.open(step.require()).groups())


def is_dense(name: str) -> bool:
    """Whether the index of that card holds vectors."""
    return bool(open_kind("index", read_card(name).kind).accepts == "vectors")
