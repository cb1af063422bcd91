"""Students that are searched by an index of their own: the index, its run, and the dense search that codes stand for.

An index of codes is filled by the model that reads the documents, whose vectors are shared, and cut by the student's
codebooks; so it is a product of both. Any other is filled by the student alone (:mod:`rerankdistill.pipeline.encoded`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rerankdistill.errors import CardError
from rerankdistill.index.build import IndexCard, fill_index, open_index, plan_index
from rerankdistill.kinds import open_kind
from rerankdistill.pipeline.card import StudentCard
from rerankdistill.pipeline.encoded import EncodedModel, encoded_filler, encoded_index_step, index_of, is_encoded
from rerankdistill.pipeline.engines import Engine
from rerankdistill.pipeline.mining import Asked, Shelf, run_step
from rerankdistill.pipeline.step import Step
from rerankdistill.pipeline.vectors import Model, read_vectors, vectors_step
from rerankdistill.pipeline.workspace import Workspace, kind_options
from rerankdistill.runs.rerank import ScoreGroups, by_vectors

WHOLE = "uncompressed"


def has_codes(card: StudentCard) -> bool:
    """Whether a student's documents go into an index of codes."""
    return index_of(card) is not None and not is_encoded(card)


def coded_index_step(ws: Workspace, shelf: Shelf, card: StudentCard, model: Model) -> Step:
    """The step that cuts the documents' vectors by a student's codebooks."""
    kind_of = open_kind("students", card.kind)
    options = kind_options("students", card.kind, card.options, "student")
    found = IndexCard(**kind_of.index_card(options), view=shelf.view)
    kind = open_kind("index", found.kind)
    vectors = vectors_step(ws, model, shelf.docs)
    inputs = {"docs": shelf.source.docs_fingerprint(), "encoder": model.reader.mark, "codebooks": model.mark}
    stem = shelf.place(f"{found.kind}-{model.name}")
    step = Step(f"index {stem}", ws.root / "indexes" / stem, plan_index(found, inputs, kind), (vectors, *model.needs))

    def run(folder: Path) -> None:
        learnt = found.model_copy(update={"options": {**found.options, "codebooks": model.reference}})
        ids, content = read_vectors(vectors)
        step.manifest.counts = fill_index(folder, learnt, ids, content, kind, ws.card.device)

    step.run = run
    return step


def indexed_engine(
    ws: Workspace,
    shelf: Shelf,
    asked: Asked,
    depth: int,
    card: StudentCard,
    model: Model,
    label: str,
    kind: str,
    extra: dict[str, Any],
) -> Engine:
    """The row of a report for a student that is searched by an index of its own."""
    index = (encoded_index_step if is_encoded(card) else coded_index_step)(ws, shelf, card, model)
    run = run_step(ws, shelf, index.name, asked, depth, model, model.name, index)
    return Engine(label, kind, "full collection", run, (run,), dict(extra), model, index=index)


def whole_engine(ws: Workspace, shelf: Shelf, asked: Asked, depth: int, name: str, model: Model | None) -> Engine:
    """The row of the dense search that a student's codes stand for: every document's whole vector."""
    if model is None:
        raise CardError("codes stand for whole vectors, and no model makes them", where=f"students.{name}")
    run = run_step(ws, shelf, "flat", asked, depth, model, f"{name}-{WHOLE}")
    return Engine(f"{name} {WHOLE}", "teacher", "full collection", run, (run,), {}, model)


def index_filler(ws: Workspace, asked: Asked, index: Step, model: Model) -> ScoreGroups:
    """What a student's own index says of any document, to complete a fusion."""
    if isinstance(model, EncodedModel):
        return encoded_filler(ws, asked, index, model)
    opened: Any = open_index(index.require(), open_kind("index", str(index.manifest.card["kind"])), ws.card.device)
    rows: Any = _Rows(opened)
    queries = list(asked.read())
    vectors = model.encode(ws, [query.text for query in queries], "query", lambda _: None)
    return by_vectors([query.query_id for query in queries], vectors, opened.ids.names, rows)


class _Rows:
    """The documents' vectors as an index remembers them, read by rows."""

    def __init__(self, index: Any) -> None:
        self._index = index

    def __getitem__(self, rows: Any) -> Any:
        import numpy as np

        return self._index[np.asarray(rows, np.int64)]
