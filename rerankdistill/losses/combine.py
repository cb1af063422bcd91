"""Weighted sums of losses: ``kl_div + 0.1 infonce``; what their options are at some moment of a training."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from rerankdistill.cards import Card
from rerankdistill.contracts import Loss, Scores
from rerankdistill.errors import CardError, UsageError
from rerankdistill.losses import ramps
from rerankdistill.types import Scale

if TYPE_CHECKING:
    from torch import Tensor

_NUMBER = r"\d+\.?\d*(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?"
_TERM = re.compile(rf"\s*(?:({_NUMBER})\s*\*?\s*)?([A-Za-z_][\w.]*(?::\w+)?)\s*(\+|$)")


Exponent = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]


class Pace(Card):
    """How much a query counts by how well the student orders it already; see :mod:`rerankdistill.losses.paced`."""

    a: Exponent = 1.0
    """Higher: what the student has mostly wrong counts less. 0: hopeless queries count in full."""
    b: Exponent = 1.0
    """Higher: what the student has mostly right counts less. 0: solved queries count in full."""


@dataclass(frozen=True, slots=True)
class Term:
    """One loss of a sum. ``at`` makes the loss of a moment, given the share of the training that is done; None: it
    stays as it is."""

    factor: float
    name: str
    loss: Loss
    at: Callable[[float], Loss] | None = None

    def over_time(self) -> tuple[Loss, ...]:
        """What the loss is at the start, on the way and at the end."""
        return (self.loss,) if self.at is None else tuple(self.at(share_done) for share_done in (0.0, 0.5, 1.0))


@dataclass(frozen=True, slots=True)
class Part:
    """One term's share of a batch, or of a part of one: ``(sum, weight)`` as its loss gave them."""

    name: str
    factor: float
    sum: Tensor
    weight: Tensor


class Weighted:
    """A weighted sum of losses, itself a :class:`~rerankdistill.contracts.Loss`.

    Its value is ``sum_k factor_k * sum_k / weight_k``: every term is averaged over what *it* counts (queries, pairs,
    texts) before the terms are added. Called with a batch it returns that value times the number of queries, and that
    number; a single term returns its own sum and weight. Where a batch comes in chunks whose terms weigh differently,
    keep the :meth:`parts` of each chunk and :meth:`reduce` them: that is the value of the undivided batch, exactly.

    Attributes:
        needs: everything that any term needs at any time.
        eats: the scales that all terms with a teacher can eat; empty where no term reads a teacher.
    """

    needs: frozenset[str]
    eats: frozenset[Scale]

    def __init__(self, terms: Sequence[Term]) -> None:
        self.terms = tuple(terms)
        losses = [loss for term in self.terms for loss in term.over_time()]
        self.needs = frozenset().union(*(loss.needs for loss in losses))
        diets = [loss.eats for loss in losses if loss.eats]
        self.eats = frozenset.intersection(*diets) if diets else frozenset()

    def __str__(self) -> str:
        return " + ".join(f"{term.factor:g} {term.name}" if term.factor != 1 else term.name for term in self.terms)

    def at(self, share_done: float) -> Weighted:
        """The loss when so much of a training is done, 0 at its start and 1 at its end."""
        if all(term.at is None for term in self.terms):
            return self
        return Weighted([Term(t.factor, t.name, t.at(share_done) if t.at else t.loss) for t in self.terms])

    def parts(self, scores: Scores) -> tuple[Part, ...]:
        """What each term makes of a batch."""
        return tuple(Part(term.name, term.factor, *term.loss(scores)) for term in self.terms)

    @staticmethod
    def reduce(chunks: Sequence[tuple[Part, ...]]) -> Tensor:
        """The value of the batch that was cut into these chunks; a term that weighs nothing adds zero."""
        total: Tensor | None = None
        for pieces in zip(*chunks, strict=True):
            weight = _add([piece.weight for piece in pieces])
            value = pieces[0].factor * _add([piece.sum for piece in pieces]) / (weight + (weight == 0))
            total = value if total is None else total + value
        if total is None:
            raise UsageError("no chunk to reduce")
        return total

    def __call__(self, scores: Scores) -> tuple[Tensor, Tensor]:
        parts = self.parts(scores)
        if len(parts) == 1:
            return parts[0].factor * parts[0].sum, parts[0].weight
        weight = _add([part.weight for part in parts])
        queries = (weight > 0).to(weight.dtype) * max(scores.student.shape[0], 1)
        return self.reduce([parts]) * queries, queries


def parse(
    text: str,
    options: Mapping[str, Mapping[str, Any]],
    opener: Callable[[str], Callable[..., Loss]],
    pace: Pace | None = None,
) -> Weighted:
    """Read a sum of losses.

    Args:
        text: ``kl_div``, ``kl_div + 0.1 infonce``, ``0.5*kl_div + 0.5*mine.losses:Kind``.
        options: the options of each loss, by its name; a number may be a ramp, see :mod:`rerankdistill.losses.ramps`.
        opener: name to class, as ``lambda name: open_kind("losses", name)``; raises UsageError for an unknown name.
        pace: how much a query counts; None: all alike.

    Raises:
        CardError: not a sum of losses; an unknown loss; options for a loss that is not in the sum, or wrong ones.
    """
    where = f"loss {text!r}"
    named = _split(text, where)
    names = [name for _, name in named]
    for name in options:
        if name not in names:
            near = get_close_matches(name, names, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"the sum has {', '.join(names)}"
            raise CardError(f"options for {name!r}, which is not in the sum", where=where, fix=hint)
    terms = []
    for factor, name in named:
        try:
            kind = opener(name)
        except UsageError as error:
            raise CardError(error.what, where=where, fix=error.fix) from error
        terms.append(_term(factor, name, kind, options.get(name, {}), pace))
    return Weighted(terms)


def _term(factor: float, name: str, kind: Callable[..., Loss], options: Mapping[str, Any], pace: Pace | None) -> Term:
    def paced(loss: Loss) -> Loss:
        if pace is None:
            return loss
        from rerankdistill.losses.paced import Paced  # torch

        return Paced(loss, pace)

    ramped = ramps.read(kind, options, f"loss {name}")
    if ramped is None:
        return Term(factor, name, paced(kind(**options)))
    return Term(factor, name, paced(ramped.at(0)), lambda share_done: paced(ramped.at(share_done)))


def _split(text: str, where: str) -> list[tuple[float, str]]:
    """``[(factor, name)]`` of the terms of a sum."""
    shape = "write it as 'kl_div + 0.1 infonce': names, each with at most one number before it, joined by +"
    found: list[tuple[float, str]] = []
    position, joined = 0, True
    while joined:
        term = _TERM.match(text, position)
        if term is None:
            rest = text[position:].strip() or "nothing"
            raise CardError(f"cannot read {rest!r} as a weighted loss", where=where, fix=shape)
        factor, name = float(term[1] or 1), term[2]
        if not 0 < factor < float("inf"):
            raise CardError(f"the weight of {name} must be above 0, got {term[1]}", where=where, fix="leave it out")
        if name in [known for _, known in found]:
            raise CardError(f"{name} appears twice", where=where, fix="add the two weights")
        found.append((factor, name))
        position, joined = term.end(), term[3] == "+"
    return found


def _add(tensors: Sequence[Tensor]) -> Tensor:
    total = tensors[0]
    for tensor in tensors[1:]:
        total = total + tensor
    return total
