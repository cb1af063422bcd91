"""Stages that match vectors of one or several teachers: whose, of which texts, and how the student gets there.

Several teachers speak as one: each one's vectors are normalised, put side by side, and normalised again (Zhang et al.
2024, Jasper and Stella, arXiv:2412.19048).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from rerankdistill.errors import CardError
from rerankdistill.losses.combine import Weighted
from rerankdistill.pipeline.card import StageCard
from rerankdistill.pipeline.step import Step
from rerankdistill.pipeline.teaching import scorer_model
from rerankdistill.pipeline.vectors import Chained, Joined, Model, read_vectors
from rerankdistill.scores.card import ScorerCard, load_teacher
from rerankdistill.students.data import Representations, Rows
from rerankdistill.students.projection import projected, projects, width_of
from rerankdistill.types import IntArray


def matched_models(stage: StageCard, where: str) -> tuple[Model, ...]:
    """The bi-encoders whose vectors a stage matches. Raises CardError for a teacher of another kind."""
    return tuple(_model(name, where) for name in stage.matched)


def _model(name: str, where: str) -> Model:
    card = load_teacher(name)
    if not isinstance(card, ScorerCard) or card.kind != "bi_encoder":
        raise CardError(f"{name!r} is no bi-encoder: its vectors cannot be matched", where=where)
    return scorer_model(card)


def targets(stage: StageCard, steps: Sequence[Step], order: IntArray | None) -> Rows:
    """The vectors of every text of a stage, read from disk by rows.

    Args:
        steps: for each teacher, one after the other, the steps of its vectors of each of the stage's texts.
        order: of the texts whose vectors are given to the first, second … text; None: their own.
    """
    size = len(stage.texts)
    parts = [read_vectors(step)[1] for step in steps]
    each = [Chained(parts[at : at + size], order) for at in range(0, len(parts), size)]
    return each[0] if len(each) == 1 else Joined(each)


def projecting(student: Any, data: Any, stage: StageCard, loss: Weighted) -> AbstractContextManager[None]:
    """What a student's vectors go through in a stage: a projection where the card asks for one, or needs one.

    Raises:
        CardError: the loss compares vectors of one dimension, the dimensions differ, and no projection is wanted.
    """
    if not isinstance(data, Representations):
        return nullcontext()
    theirs = int(data.targets[[0]].shape[1])
    own = width_of(student) if projects(student) else theirs
    equal = [term.name for term in loss.terms if getattr(term.loss, "same_dimension", False)]
    width = _width(stage, own, theirs, bool(equal))
    ours = width or own
    if equal and ours != theirs:
        what = f"{equal[0]} compares vectors of one dimension; the student's have {ours}, the teacher's {theirs}"
        fix = "leave project out: a learned projection closes the gap; or take losses on relations: similarity_mse"
        raise CardError(what, where=f"project = {str(stage.project).lower()}", fix=fix)
    if not width:
        return nullcontext()
    return projected(student, width, stage.keep_projection, stage.project_only)


def _width(stage: StageCard, own: int, theirs: int, equal: bool) -> int:
    """Dimensions that a student's vectors are projected to; 0: they are not."""
    if stage.project == "auto":
        return theirs if own != theirs and (equal or stage.keep_projection) else 0
    if isinstance(stage.project, bool):
        return theirs if stage.project else 0
    return stage.project
