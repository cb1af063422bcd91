"""What kind of evidence a number is, and the kinds that a teacher can give where nobody judged.

On documents without judgements there are three, and none is the other: queries that were *generated* about documents
that no training query is about, each counting its own document alone; the same queries *judged by a teacher*, the one
that taught or another; and the judgements of *people*. A report says first which of them it is made of.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rerankdistill import artifacts
from rerankdistill.collections.write import qrels
from rerankdistill.examples.relabel import RATE, relabelling
from rerankdistill.pipeline.card import EvaluateCard
from rerankdistill.pipeline.chain import stem
from rerankdistill.pipeline.lessons import mined_runs
from rerankdistill.pipeline.mining import Asked, Shelf, candidates_step, read_candidates
from rerankdistill.pipeline.step import Step
from rerankdistill.pipeline.teaching import Faculty
from rerankdistill.pipeline.workspace import Workspace
from rerankdistill.types import Judgement

if TYPE_CHECKING:
    from rerankdistill.pipeline.lessons import Lessons

GENERATED = (
    "generated. The queries were written {0}, about documents that no training query is about; each counts the "
    "document that it was written from, and no other, as relevant"
)
BY_TEACHER = (
    "judged by {0}{1}. The same held-out queries; of {2} its first document counts 3, the next two 2, those up to the "
    "tenth 1. It says how far a row agrees with this teacher, not that it is right"
)
BY_PEOPLE = "people's judgements of real queries"
GRADES = (3, 2, 2, 1, 1, 1, 1, 1, 1, 1)
"""What a document counts by its place in a teacher's order."""


def said(target: EvaluateCard) -> dict[str, Any]:
    """What a report's fingerprint hangs on of what is said in it."""
    return {"said": [target.evidence, *target.notes]} if target.evidence or target.notes else {}


def opening(target: EvaluateCard) -> list[str]:
    """What a report says first."""
    return [*([f"Evidence: {target.evidence}."] if target.evidence else []), *target.notes]


def relabelled_notes(lessons: Mapping[str, Lessons]) -> list[str]:
    """For each student whose positives its teacher may have chosen, how many it did."""
    counted = {
        name: artifacts.read(lesson.examples.folder, "examples").counts
        for name, lesson in lessons.items()
        if lesson.student.relabel != "none"
    }
    return [f"{name}: {relabelling(counts)}." for name, counts in counted.items() if RATE in counts]


def split_by(teacher: str) -> str:
    """The split whose judgements are a teacher's."""
    return f"by-{stem(teacher)}"


def judged_step(ws: Workspace, collection: Step, teachers: Sequence[str]) -> Step:
    """The step that makes a collection's copy whose held-out queries teachers have judged, each in a split of its own;
    its workspace is about the collection. No document is copied, and nothing that trains is changed."""
    source = ws.source()
    asked = Asked("held-out", source.queries_fingerprint("test"), lambda: source.queries("test"))
    shelf, depth = Shelf(source, ws.card.view), ws.card.mine.depth
    candidates = candidates_step(ws, asked, mined_runs(ws, shelf, asked, depth), depth)
    faculties = {name: Faculty(ws, shelf, name) for name in teachers}
    scored = {name: faculty.scored_steps(asked, candidates) for name, faculty in faculties.items()}
    inputs = {"collection": collection.fingerprint, "candidates": candidates.fingerprint}
    inputs |= {f"{name}/{step.name}": step.fingerprint for name, steps in scored.items() for step in steps}
    needs = (collection, candidates, *(step for steps in scored.values() for step in steps))
    step = Step("held-out queries judged", ws.root / "judged", artifacts.plan("judged", 1, {}, inputs), needs)

    def run(folder: Path) -> None:
        _copy(collection.require(), folder)
        lists = read_candidates(candidates)
        for name, faculty in faculties.items():
            told = faculty.fused(faculty.raw(asked, candidates, scored[name]))
            listed = ((query_id, lists[query_id]) for query_id in told)
            judged = [each for query_id, doc_ids in listed for each in _graded(query_id, doc_ids, told[query_id])]
            (folder / "qrels" / f"{split_by(name)}.tsv").write_text(qrels(judged), "utf-8")

    step.run = run
    return step


def _copy(collection: Path, folder: Path) -> None:
    (folder / "qrels").mkdir()
    for path in [collection / "corpus.jsonl", collection / "queries.jsonl", *(collection / "qrels").iterdir()]:
        artifacts.link(path, folder / path.relative_to(collection))  # documents may be large


def _graded(query_id: str, doc_ids: Sequence[str], scores: Any) -> list[Judgement]:
    """The first documents of a teacher's order; those without a score are left out."""
    known = [at for at in np.argsort(-scores, kind="stable").tolist() if not np.isnan(scores[at])]
    return [Judgement(query_id, doc_ids[at], grade) for at, grade in zip(known, GRADES, strict=False)]
