"""What every loss checks before it computes, so that a loss cannot fail quietly.

A cell that takes no part (padding, unscored, not of the list) is replaced by zero *before* any arithmetic: whatever it
held, NaN included, its gradient is exactly zero.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Annotated, Literal, cast

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import pad

from rerankdistill.cards import Card
from rerankdistill.contracts import Layers, Logits, Preferences, Scores
from rerankdistill.errors import DataError, RerankDistillError, RerankDistillWarning
from rerankdistill.types import Scale

Over = Literal["own", "batch"]
"""A query's list: its own documents, or every document of the batch."""

Temperature = Annotated[float, Field(ge=1e-4, le=1e4, allow_inf_nan=False)]
"""Below 1e-4 a division would overflow, or the list become one-hot whatever it holds."""

VALUES = frozenset(set(Scale) - {Scale.RANK})
"""Scales whose differences mean something."""

ORDERS = frozenset(Scale)
"""Every scale: all of them order documents."""

Result = tuple[Tensor, Tensor]


class Tempered(Card):
    """What losses on two distributions over a list have in common."""

    tau_student: Temperature = 1.0
    """Divides the student's scores; a student that scores by cosine wants about 0.05."""
    tau_teacher: Temperature = 1.0
    """Divides the teacher's scores; higher is softer."""
    over: Over = "own"
    """A list is the query's own documents, or every document of the batch that the teacher scored for it."""


@dataclass(slots=True)
class Lists:
    """The cells of a batch that a loss may touch; every tensor is 0 (``positive``: -1) elsewhere.

    Attributes:
        student: ``[b, k]``, float32 or float64, with gradient.
        use: ``[b, k]`` bool.
        teacher: ``[b, k]`` without gradient, of the student's dtype.
        label: ``[b, k]``.
        positive: ``[b]`` column of the positive, -1 where there is none in use.
        masked: ``[b, k]`` bool, documents that must not count as negatives.
    """

    student: Tensor
    use: Tensor
    teacher: Tensor
    label: Tensor
    positive: Tensor
    masked: Tensor

    def compact(self) -> Lists:
        """The same lists without the columns that no query uses: pairs of a wide batch then cost only their own."""
        parts = (self.student, self.use, self.teacher, self.label, self.masked)
        if not self.use.shape[1]:  # one empty column, since nothing has no maximum
            student, use, teacher, label, masked = (pad(part, (0, 1)) for part in parts)
            return Lists(student, use, teacher, label, self.positive, masked)
        width = int(self.use.sum(1).max()) if self.use.numel() else 0
        if width == self.use.shape[1]:
            return self
        columns = torch.argsort(self.use.logical_not().to(torch.uint8), dim=1, stable=True)[:, : max(width, 1)]
        hit = columns == self.positive[:, None]
        positive = torch.where(hit.any(1), hit.to(torch.uint8).argmax(1), -1)
        student, use, teacher, label, masked = (part.gather(1, columns) for part in parts)
        return Lists(student, use, teacher, label, positive, masked)

    def is_positive(self) -> Tensor:
        """``[b, k]`` bool, true at each list's positive."""
        return torch.arange(self.use.shape[1], device=self.use.device) == self.positive[:, None]

    def count(self) -> Tensor:
        """How many lists have anything in them."""
        return self.use.any(1).sum().to(self.student.dtype)


def read(scores: Scores, loss: str, needs: frozenset[str], over: Over = "batch", alone: bool = False) -> Lists:
    """Check a batch and take out the cells that count.

    With ``"teacher"`` among ``needs`` only scored cells count. A list of one candidate has nothing to learn from: it is
    left out (weight zero), with a warning; not so with ``alone``, for losses that look at one document at a time.

    Raises:
        DataError: a field is missing or has another shape than ``student``; a teacher score in use is not finite.
        RerankDistillError: a student score in use is not finite.
    """
    require(scores, loss, needs)
    _check_shapes(scores, loss)
    student = widen(scores.student)
    use = torch.ones_like(student, dtype=torch.bool)
    follows = "teacher" in needs
    for part in (scores.valid, scores.scored if follows else None, scores.own if over == "own" else None):
        use = use if part is None else use & part.bool()
    check_student(student, use, loss)
    zero = torch.zeros((), dtype=student.dtype, device=student.device)
    teacher = torch.zeros_like(student)
    if follows and scores.teacher is not None:
        teacher = scores.teacher.detach().to(student.dtype)
        _check_teacher(teacher, use, loss)
    label = torch.zeros_like(student) if scores.label is None else scores.label.detach().to(student.dtype)
    use = use if alone else drop_single(use, loss)
    return Lists(
        torch.where(use, student, zero),
        use,
        torch.where(use, teacher, zero),
        torch.where(use, label, zero).clamp(min=0),
        _positive(scores, use),
        torch.zeros_like(use) if scores.masked is None else scores.masked.bool() & use,
    )


def require(scores: Scores, loss: str, needs: frozenset[str]) -> None:
    """Raises DataError when a batch lacks a field that a loss cannot do without."""
    lacking = sorted(name for name in needs if getattr(scores, name) is None)
    if lacking:
        raise DataError(f"the batch has no {', '.join(lacking)}", where=f"loss {loss}", fix="choose another loss")


def widen(tensor: Tensor) -> Tensor:
    """float32 at least; float64 stays."""
    return tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()


def drop_single(use: Tensor, loss: str) -> Tensor:
    """``use`` without the lists that hold exactly one candidate, and a warning (shown once) when there are any."""
    single = use.sum(1) == 1
    if bool(single.any()):
        warnings.warn(
            f"loss {loss}: a list with one candidate teaches nothing and was left out; give every query two or more",
            RerankDistillWarning,
            stacklevel=4,
        )
    return use & ~single[:, None]


def warn_of_lists(scores: Scores, loss: str, what: str) -> None:
    """Warn (once) where documents are compared across queries, and no query has a document besides its own list: of a
    student that reads pairs, another query's column is another document."""
    own = scores.own
    if own is None or len(own) < 2 or not own.numel():
        return
    others = ~own.bool() if scores.valid is None else scores.valid.bool() & ~own.bool()
    if not bool(others.any()):
        text = f"loss {loss}: {what} compares documents across queries, and this batch has none but each query's own"
        warnings.warn(f"{text}; take it for a student that compares vectors", RerankDistillWarning, stacklevel=3)


def log_softmax(values: Tensor, use: Tensor, tau: float) -> Tensor:
    """``[b, k]`` log of softmax(values / tau) over the cells in use, in log space; 0 in the others."""
    scaled = torch.where(use, values / tau, -torch.inf)
    scaled = scaled.masked_fill(~use.any(1, keepdim=True), 0.0)  # an empty list would be NaN
    return torch.where(use, scaled.log_softmax(1), torch.zeros_like(scaled))


def distributions(lists: Lists, options: Tempered) -> tuple[Tensor, Tensor]:
    """``[b, k]`` logs of the student's distribution over each list and of the teacher's."""
    student = log_softmax(lists.student, lists.use, options.tau_student)
    return student, log_softmax(lists.teacher, lists.use, options.tau_teacher)


def contrast(lists: Lists, tau: float, loss: str) -> Result:
    """Cross-entropy of each list's positive against its negatives, as (``[b]``, ``[b]`` whether a list counts).

    Other documents with a label above zero, and masked ones, are no negatives: they leave the denominator.
    """
    positive = lists.is_positive()
    use = lists.use & (positive | ~((lists.label > 0) | lists.masked)) & (lists.positive >= 0)[:, None]
    use = drop_single(use, loss)
    return -torch.where(positive & use, log_softmax(lists.student, use, tau), 0.0).sum(1), use.any(1)


def vectors(scores: Scores, loss: str, same_dimension: bool) -> tuple[Tensor, Tensor]:
    """``(student [t, d], teacher [t, d'])``, the teacher detached and of the student's dtype.

    Raises:
        DataError: no vectors; not as many of each; unequal dimensions where they must be equal; NaN or infinity.
    """
    pair = scores.vectors
    if pair is None:
        fix = "give a teacher that encodes texts (kind bi_encoder)"
        raise DataError("the batch has no vectors", where=f"loss {loss}", fix=fix)
    student = widen(pair.student)
    teacher = pair.teacher.detach().to(student.dtype)
    shapes = f"student {tuple(student.shape)}, teacher {tuple(teacher.shape)}"
    if student.ndim != 2 or teacher.ndim != 2 or student.shape[0] != teacher.shape[0]:
        raise DataError(f"vectors must be two matrices with one row per text: {shapes}", where=f"loss {loss}")
    if same_dimension and student.shape[1] != teacher.shape[1]:
        fix = "use similarity_mse, which compares any two dimensions, or a student as wide as its teacher"
        raise DataError(f"student and teacher vectors differ in dimension: {shapes}", where=f"loss {loss}", fix=fix)
    everything = torch.ones_like(student, dtype=torch.bool)
    check_student(student, everything, loss)
    _check_teacher(teacher, torch.ones_like(teacher, dtype=torch.bool), loss)
    return student, teacher


def queue(scores: Scores, teacher: Tensor, loss: str) -> Tensor:
    """``[k, d']`` the teacher's vectors of other texts, k being 0 where none are kept. Raises DataError."""
    kept = None if scores.vectors is None else scores.vectors.queue
    if kept is None:
        return teacher[:0]
    if kept.ndim != 2 or kept.shape[1] != teacher.shape[1]:
        what = f"the queue has shape {tuple(kept.shape)}, the teacher's vectors {tuple(teacher.shape)}"
        raise DataError(what, where=f"loss {loss}")
    kept = kept.detach().to(teacher.dtype)
    _check_teacher(kept, torch.ones_like(kept, dtype=torch.bool), loss)
    return kept


def comparisons(scores: Scores, use: Tensor, loss: str) -> Preferences:
    """The teacher's comparisons of documents that are both in use, the probability of the student's dtype.

    Raises:
        DataError: none at all; not as many of each part; a column that the batch has not; no probability.
    """
    require(scores, loss, frozenset({"preferences"}))
    theirs = cast(Preferences, scores.preferences)
    row, first, second = (part.long() for part in (theirs.row, theirs.first, theirs.second))
    probability, shape = theirs.probability.detach().to(widen(scores.student).dtype), use.shape
    if not row.shape == first.shape == second.shape == probability.shape or row.ndim != 1:
        raise DataError("row, first, second and probability must be as many", where=f"loss {loss}: preferences")
    beyond = [(part < 0) | (part >= size) for part, size in ((row, shape[0]), (first, shape[1]), (second, shape[1]))]
    if bool((beyond[0] | beyond[1] | beyond[2]).any()):
        what = f"a comparison of a row or a column that the batch of {shape[0]} x {shape[1]} has not"
        raise DataError(what, where=f"loss {loss}: preferences")
    kept = use[row, first] & use[row, second] & (first != second)
    row, first, second, probability = (part[kept] for part in (row, first, second, probability))
    if not bool(((probability >= 0) & (probability <= 1)).all()):
        fix = "leave out what was not compared; a teacher of kind pairwise gives P(first is better)"
        raise DataError("a preference is no probability from 0 to 1", where=f"loss {loss}", fix=fix)
    return Preferences(row, first, second, probability)


def layers(scores: Scores, use: Tensor, loss: str) -> tuple[Tensor, Tensor]:
    """``[l, b, m]`` scores by layer of the student and of the teacher, 0 where a cell is not in use.

    Raises:
        DataError: none; not of one shape; a teacher score in use that is not finite.
    """
    require(scores, loss, frozenset({"layers"}))
    pair = cast(Layers, scores.layers)
    student, teacher = widen(pair.student), pair.teacher.detach()
    if student.ndim != 3 or student.shape != teacher.shape or student.shape[1:] != use.shape or not len(student):
        what = f"layers must be [layers, {use.shape[0]}, {use.shape[1]}] of both"
        shapes = f"student {tuple(student.shape)}, teacher {tuple(teacher.shape)}"
        raise DataError(f"{what}: {shapes}", where=f"loss {loss}")
    for mine, theirs in zip(student, teacher, strict=True):
        check_student(mine, use, loss)
        _check_teacher(theirs, use, loss)
    return torch.where(use, student, 0.0), torch.where(use, teacher.to(student.dtype), 0.0)


def logits(scores: Scores, use: Tensor, loss: str) -> tuple[Tensor, Tensor, Tensor]:
    """``(student [b, m, 2], teacher, use [b, m])``: NaN of the teacher says that it said nothing of that document.

    Raises:
        DataError: none; not of one shape; infinity.
    """
    require(scores, loss, frozenset({"logits"}))
    pair = cast(Logits, scores.logits)
    student, teacher = widen(pair.student), pair.teacher.detach()
    if student.shape != (*use.shape, 2) or teacher.shape != student.shape:
        what = f"logits must be [{use.shape[0]}, {use.shape[1]}, 2] of both, as (no, yes)"
        shapes = f"student {tuple(student.shape)}, teacher {tuple(teacher.shape)}"
        raise DataError(f"{what}: {shapes}", where=f"loss {loss}")
    use = use & ~teacher.isnan().any(2)
    for mine, theirs in zip(student.unbind(2), teacher.unbind(2), strict=True):
        check_student(mine, use, loss)
        _check_teacher(theirs, use, loss)
    kept = use[:, :, None]
    return torch.where(kept, student, 0.0), torch.where(kept, teacher.to(student.dtype), 0.0), use


def _check_shapes(scores: Scores, loss: str) -> None:
    shape = scores.student.shape
    if len(shape) != 2:
        raise DataError(f"student scores must be [queries, documents], not {tuple(shape)}", where=f"loss {loss}")
    for name in ("teacher", "valid", "scored", "own", "label", "masked"):
        part = getattr(scores, name)
        if part is not None and part.shape != shape:  # never broadcast: a narrower row would go unnoticed
            what = f"{name} has shape {tuple(part.shape)}, the student's scores {tuple(shape)}"
            fix = "pad every row to the batch's columns and mark the padding as not valid"
            raise DataError(what, where=f"loss {loss}", fix=fix)
    positive = scores.positive
    if positive is not None and (positive.shape != shape[:1] or bool((positive >= shape[1]).any())):
        what = f"positive must be [{shape[0]}] columns below {shape[1]}, got shape {tuple(positive.shape)}"
        raise DataError(what, where=f"loss {loss}")


def check_student(student: Tensor, use: Tensor, loss: str) -> None:
    bad = (~torch.isfinite(student.detach()) & use).nonzero()
    if len(bad):
        what = f"the student's output is not finite at row {int(bad[0, 0])}, column {int(bad[0, 1])}"
        fix = "training has diverged: lower the learning rate, or train in float32"
        raise RerankDistillError(what, where=f"loss {loss}", fix=fix)


def _check_teacher(teacher: Tensor, use: Tensor, loss: str) -> None:
    bad = (~torch.isfinite(teacher) & use).nonzero()
    if len(bad):
        what = f"the teacher's output is not finite at row {int(bad[0, 0])}, column {int(bad[0, 1])}"
        raise DataError(what, where=f"loss {loss}", fix="mark cells that the teacher did not score as not scored")


def _positive(scores: Scores, use: Tensor) -> Tensor:
    none = torch.full((use.shape[0],), -1, dtype=torch.long, device=use.device)
    if scores.positive is None or not use.numel():
        return none
    positive = scores.positive.long()
    used = use.gather(1, positive.clamp(min=0)[:, None])[:, 0]
    return torch.where(used & (positive >= 0), positive, none)
