"""How much a re-ranker counts beside its first stage: chosen on dev queries, so that the test's have no part in it.

A small re-ranker is often worth less than BM25 and still knows something that BM25 does not. An equal sum gives it a
voice that it has not earned; a weight of 0 is allowed, and says that it has none.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from rerankdistill import artifacts
from rerankdistill.errors import CardError
from rerankdistill.evaluation.measure import measure
from rerankdistill.pipeline.card import EvaluateCard, StudentCard, own_collection
from rerankdistill.pipeline.engines import Weight, pair_rerank_step
from rerankdistill.pipeline.lanes import read_training
from rerankdistill.pipeline.lessons import Lessons
from rerankdistill.pipeline.mining import Asked, Shelf, read_run, run_step
from rerankdistill.pipeline.step import Step
from rerankdistill.runs.fuse import zscore_sum
from rerankdistill.runs.weights import WEIGHTS
from rerankdistill.types import Judgement, Query, Run

MEASURE = "ndcg@10"


def weight_step(
    lessons: Lessons, target: EvaluateCard, shelf: Shelf, name: str, card: StudentCard, student: Step
) -> Step:
    """The step that leaves ``weight.json``: the weight of a re-ranker's z-scores, the first stage's being 1.

    Raises:
        CardError: the collection is not the one that was trained on: there are no dev queries to choose by.
    """
    ws = lessons.ws
    if not own_collection(ws.card, target):
        what = "fuse_weight = 'dev': this collection has no dev queries of the student's"
        raise CardError(what, where=f"students.{name}", fix="give a number, or evaluate on the pipeline's collection")
    asked = Asked(
        f"{lessons.lane.name}-dev", lessons.queries.fingerprint, lambda: _dev(lessons.queries), (lessons.queries,)
    )
    file = student.folder.name
    first = run_step(ws, shelf, target.first_stage, asked, target.depth)
    own = pair_rerank_step(ws, shelf, asked, first, card.rerank_depth, name, card, student, file)
    inputs = {"first": first.fingerprint, "second": own.fingerprint}
    about = {"depth": card.rerank_depth, "weights": list(WEIGHTS), "measure": MEASURE}
    manifest = artifacts.plan("weight", 1, about, inputs)
    step = Step(f"weight of {file}", ws.root / "weights" / file, manifest, (first, own))

    def run(folder: Path) -> None:
        dev = {query.query_id for query in asked.read()}
        judged = [each for each in read_training(lessons.queries).judgements if each.query_id in dev]
        chosen, found = choose_weight(read_run(first), read_run(own), judged, card.rerank_depth)
        told = {"weight": chosen, "tried": dict(zip(map(str, WEIGHTS), found, strict=True)), "queries": len(dev)}
        (folder / "weight.json").write_text(json.dumps(told, indent=1), "utf-8")
        step.manifest.counts = {"weight": chosen, "queries": len(dev)}

    step.run = run
    return step


def choose_weight(first: Run, second: Run, judged: Sequence[Judgement], depth: int) -> tuple[float, list[float]]:
    """The best of :data:`WEIGHTS` for the second run, and what each of them reads in nDCG@10.

    Without a judged query nothing chooses, and the weight is 1.
    """
    if not judged:
        return WEIGHTS[0], [float("nan")] * len(WEIGHTS)
    sums = (zscore_sum([first, second], depth, weights=[1.0, weight]) for weight in WEIGHTS)
    found = [measure(fused, judged, (MEASURE,)).means[MEASURE] for fused in sums]
    return WEIGHTS[found.index(max(found))], found


def weight_of(
    lessons: Lessons, target: EvaluateCard, shelf: Shelf, name: str, card: StudentCard, student: Step
) -> Weight | None:
    """The weight as :func:`rerankdistill.pipeline.engines.fusion_step` takes it; None where both count alike."""
    given = card.fuse_weight
    if given == 1.0:
        return None
    if given != "dev":
        return Weight(str(given), lambda: given)
    step = weight_step(lessons, target, shelf, name, card, student)
    return Weight(step.fingerprint, lambda: read_weight(step), (step,))


def read_weight(step: Step) -> float:
    """The weight that a step chose."""
    return float(json.loads((step.require() / "weight.json").read_text("utf-8"))["weight"])


def _dev(queries: Step) -> list[Query]:
    training = read_training(queries)
    return [query for query in training.queries if query.query_id in training.dev]
