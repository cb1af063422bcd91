"""The verb :func:`adapt`: documents become a collection, and a pipeline walks over it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rerankdistill.pipeline import verbs
from rerankdistill.pipeline.adapting import collection_step, written_step
from rerankdistill.pipeline.card import EvaluateCard, PipelineCard, load_pipeline
from rerankdistill.pipeline.reading import AdaptCard, documents_step
from rerankdistill.pipeline.step import Notes, Quiet, walk
from rerankdistill.pipeline.workspace import Workspace


@dataclass(frozen=True)
class Adapted:
    """What :func:`adapt` leaves: folders of students and reports, and what each filter did to the queries."""

    students: list[Path]
    reports: list[Path]
    funnel: list[dict[str, Any]]


def adapt(
    card: AdaptCard,
    pipeline: str,
    overrides: tuple[str, ...],
    on: tuple[str, ...],
    out: Path,
    notes: Notes | None = None,
) -> Adapted:
    """Read, write, sift, train and measure.

    Args:
        pipeline: what trains; its collection is replaced by the one that is made here.
        on: collections with judgements of people to measure on as well; their test queries are kept out of training.

    Raises:
        DataError: nothing to read, or no query left; see the message.
        CardError: a mistake in the pipeline, or a style that cannot be written.
    """
    notes = notes or Quiet()
    documents = documents_step(out, card, notes)
    walk([documents], notes)
    asked = load_pipeline(pipeline, overrides)
    ws = Workspace(_on(asked, documents.folder), out, notes)
    written = written_step(ws, card, documents)
    collection = collection_step(ws, card, documents, written)
    walk([collection], notes)
    whole = _on(asked, collection.folder)
    own = whole.evaluate if card.held_out else ()
    targets = (*own, *(EvaluateCard(collection=name) for name in on))
    whole = whole.model_copy(update={"evaluate": targets})
    reports = verbs.evaluate(whole, out, notes)
    students = [out / "students" / f"{name}-seed{seed}" for name in whole.students for seed in whole.seeds]
    funnel = json.loads((collection.folder / "funnel.json").read_text("utf-8"))
    return Adapted(students, reports, funnel)


def _on(card: PipelineCard, folder: Path) -> PipelineCard:
    return card.model_copy(update={"collection": str(folder)})
