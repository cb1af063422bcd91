"""Options of a loss that change in the course of a training: ``tau_teacher = { from = 2.0, to = 0.5 }``.

The value follows the share of the training that is done: in a straight line, or along half a cosine, which leaves and
arrives slowly. An option that is a whole number is rounded.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from rerankdistill.cards import Card, parse
from rerankdistill.contracts import Loss
from rerankdistill.errors import CardError

FIELDS = {"from", "to", "shape"}
Number = Annotated[float, Field(allow_inf_nan=False, strict=True)]


class Ramp(Card):
    """A number that grows or falls, as a card writes it."""

    start: Number = Field(alias="from")
    to: Number
    shape: Literal["linear", "cosine"] = "linear"

    def at(self, share_done: float) -> float:
        """The number when so much of the training is done."""
        way = min(max(share_done, 0.0), 1.0)
        if self.shape == "cosine":
            way = (1 - math.cos(math.pi * way)) / 2
        return self.start + (self.to - self.start) * way


@dataclass(frozen=True, slots=True)
class Ramped:
    """A loss some of whose options are ramps.

    Attributes:
        kind: the class of the loss.
        options: those that stay as they are.
        ramps: the others, by name.
        whole: which of them are whole numbers.
    """

    kind: Callable[..., Loss]
    options: Mapping[str, Any]
    ramps: Mapping[str, Ramp]
    whole: frozenset[str] = frozenset()

    def at(self, share_done: float) -> Loss:
        """The loss when so much of the training is done."""
        values = {name: ramp.at(share_done) for name, ramp in self.ramps.items()}
        rounded = {name: round(value) if name in self.whole else value for name, value in values.items()}
        return self.kind(**self.options, **rounded)


def read(kind: Callable[..., Loss], options: Mapping[str, Any], where: str) -> Ramped | None:
    """The loss that a table of options describes, if any of them is a ramp. It is tried at the start, on the way and at
    the end, so that a training cannot fail in its middle.

    Raises:
        CardError: a ramp that is none; an option that is no number; a value on the way that the loss refuses.
    """
    tables = {name: value for name, value in options.items() if isinstance(value, Mapping) and FIELDS & set(value)}
    if not tables:
        return None
    ramps = {name: parse(Ramp, table, f"{where}: options.{name}") for name, table in tables.items()}
    rest = {name: value for name, value in options.items() if name not in ramps}
    first = _tried(Ramped(kind, rest, ramps), 0.0, where)
    own = {name: getattr(getattr(first, "options", None), name, None) for name in ramps}
    if odd := [name for name, value in own.items() if isinstance(value, bool | str)]:
        fix = "write one value; only a number can be reached step by step"
        raise CardError(f"options.{odd[0]}: a ramp, and the option is no number", where=where, fix=fix)
    found = Ramped(kind, rest, ramps, frozenset(name for name, value in own.items() if isinstance(value, int)))
    for share_done in (0.37, 1.0):
        _tried(found, share_done, where)
    return found


def _tried(loss: Ramped, share_done: float, where: str) -> Loss:
    try:
        return loss.at(share_done)
    except CardError as error:
        when = {0.0: "where the ramp begins", 1.0: "where the ramp ends"}.get(share_done, "on the way of the ramp")
        names = ", ".join(f"options.{name}" for name in loss.ramps)
        raise CardError(f"{names}: {when}: {error.what}", where=where, fix=error.fix) from error
