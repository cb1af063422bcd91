"""Students that make something else of a text than one vector: weights of words, or a vector for each token.

A student's kind says by ``index_card`` which index its documents go into; where that accepts no vectors, the student
itself encodes the documents, in shards so that a killed run loses one at most, and they go straight into the index:
what it holds is nowhere else on the disk.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rerankdistill import representations
from rerankdistill.contracts import Role
from rerankdistill.index.build import IndexCard, fill_index, open_index, plan_index
from rerankdistill.kinds import open_kind
from rerankdistill.pipeline.card import StudentCard
from rerankdistill.pipeline.mining import Asked, Shelf
from rerankdistill.pipeline.step import Step
from rerankdistill.pipeline.vectors import SHARD, Model, shards
from rerankdistill.pipeline.workspace import Workspace, kind_options
from rerankdistill.runs.rerank import ScoreGroups


@dataclass(frozen=True, kw_only=True)
class EncodedModel(Model):
    """A trained student as steps know it that only its own kind can open."""

    card: StudentCard = field(compare=False)

    def open(self, ws: Workspace) -> Any:
        """The student, ready to encode."""

        def student() -> Any:
            options = kind_options("students", self.card.kind, self.card.options, "student")
            return open_kind("students", self.card.kind).open(Path(self.reference), options, ws.card.device).encoder()

        return ws.held((self.reference, self.mark), student)

    def encode(self, ws: Workspace, texts: Sequence[str], role: Role, advance: Callable[[int], None]) -> Any:
        """Rows of :mod:`rerankdistill.representations`."""
        return self.open(ws).encode(texts, role, advance)


def index_of(card: StudentCard) -> IndexCard | None:
    """The index of its own that a student of this kind is searched by; None for one that any dense index serves, and
    for one that reads pairs."""
    kind = open_kind("students", card.kind)
    if not hasattr(kind, "index_card"):
        return None
    return IndexCard(**kind.index_card(kind_options("students", card.kind, card.options, "student")))


def is_encoded(card: StudentCard) -> bool:
    """Whether a student makes something else of a text than one vector."""
    found = index_of(card)
    return found is not None and open_kind("index", found.kind).accepts != "vectors"


def encoded_index_step(ws: Workspace, shelf: Shelf, card: StudentCard, model: Model) -> Step:
    """The step that encodes the documents by a student and fills its index."""
    own = index_of(card)
    if own is None:
        raise ValueError(f"a student of kind {card.kind!r} has no index of its own")
    found = own.model_copy(update={"view": shelf.view})
    kind = open_kind("index", found.kind)
    inputs = {"docs": shelf.source.docs_fingerprint(), "encoder": model.mark}
    stem = shelf.place(f"{found.kind}-{model.name}")
    step = Step(f"index {stem}", ws.root / "indexes" / stem, plan_index(found, inputs, kind), model.needs)
    step.partial = partial = ws.root / "partial" / f"{step.fingerprint}-{SHARD}"

    def run(folder: Path) -> None:
        ids, parts = shards(ws, model, shelf.docs, partial, "", _write)
        content = representations.joined([representations.load(part) for part in parts])
        step.manifest.counts = fill_index(folder, found, ids, content, kind, ws.card.device)

    step.run = run
    return step


def _write(folder: Path, content: Any) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    representations.save(folder, content)


def encoded_filler(ws: Workspace, asked: Asked, index: Step, model: Model) -> ScoreGroups:
    """What a student's index says of any document, to complete a fusion."""
    opened: Any = open_index(index.require(), open_kind("index", str(index.manifest.card["kind"])), ws.card.device)
    queries = list(asked.read())
    made: Any = model.encode(ws, [query.text for query in queries], "query", lambda _: None)
    rows = {query.query_id: row for row, query in enumerate(queries)}
    return lambda groups: [opened.score(made[[rows[query_id]]], doc_ids) for query_id, doc_ids in groups]
