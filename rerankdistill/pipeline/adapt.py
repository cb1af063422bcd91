"""The verb :func:`adapt`: documents become a collection, and a pipeline walks over it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rerankdistill.pipeline import evidence, verbs
from rerankdistill.pipeline.adapting import collection_step, written_step
from rerankdistill.pipeline.card import EvaluateCard, PipelineCard, load_pipeline
from rerankdistill.pipeline.chain import stem
from rerankdistill.pipeline.continuing import continued
from rerankdistill.pipeline.reading import AdaptCard, documents_step
from rerankdistill.pipeline.step import Notes, Quiet, Step, walk
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
    funnel = json.loads((collection.folder / "funnel.json").read_text("utf-8"))
    whole = _whole(card, asked, collection, on, out, notes, funnel)
    reports = verbs.evaluate(whole, out, notes)
    students = [out / "students" / f"{name}-seed{seed}" for name in whole.students for seed in whole.seeds]
    return Adapted(students, reports, funnel)


def _whole(
    card: AdaptCard,
    asked: PipelineCard,
    collection: Step,
    on: tuple[str, ...],
    out: Path,
    notes: Notes,
    funnel: list[dict[str, Any]],
) -> PipelineCard:
    """The pipeline over the collection that was made, with every evaluation, each of its kind of evidence."""
    whole, targets = _on(asked, collection.folder), []
    if card.relabel:
        students = {name: each.model_copy(update={"relabel": "all"}) for name, each in whole.students.items()}
        whole = whole.model_copy(update={"students": students})
    if card.held_out:
        how = "by a language model" if card.writer else "by rules"
        sifted = "Queries: " + ", ".join(f"{each['name']} {each['came']:,} → {each['passed']:,}" for each in funnel)
        told = {"evidence": evidence.GENERATED.format(how), "notes": (f"{sifted}.",)}
        targets += [each.model_copy(update=told) for each in whole.evaluate]
        teachers = {whole.teacher: ", who taught the student"}
        teachers |= {card.second_teacher: ", who took no part in training"} if card.second_teacher else {}
        judged = evidence.judged_step(Workspace(whole, out, notes), collection, list(teachers))
        walk([judged], notes)
        whole = _on(whole, judged.folder)
        pool = f"the first {whole.mine.depth} of {' and '.join(Path(name).stem for name in whole.mine.indexes)}"
        for name, part in teachers.items():
            kind = evidence.BY_TEACHER.format(stem(name), part, pool)
            targets.append(EvaluateCard(split=evidence.split_by(name), evidence=kind))
    targets += [EvaluateCard(collection=name, evidence=evidence.BY_PEOPLE, notes=_read(card, name)) for name in on]
    whole = whole.model_copy(update={"evaluate": tuple(targets)})
    return continued(whole, Path(card.continue_from).expanduser(), card.keep, out) if card.continue_from else whole


def _read(card: AdaptCard, target: str) -> tuple[str, ...]:
    """What a report on a collection says about its documents, where they were adapted to."""
    if target != card.docs:
        return ()
    if card.leave_out_judged:
        return ("The documents that its judgements call relevant were left out of what was adapted to.",)
    return ("Transductive: its documents were adapted to, its queries and judgements were not.",)


def _on(card: PipelineCard, folder: Path) -> PipelineCard:
    return card.model_copy(update={"collection": str(folder)})
