r"""Margin-MSE: the student's margin between two documents is to equal the teacher's.

.. math:: \frac{1}{|P|} \sum_{(i, j) \in P} \left[(s_i - s_j) - c\,(t_i - t_j)\right]^2

``pairs`` decides P: ``given``, the positive against every other document; ``all``, every pair with t_i > t_j;
``all_n2``, all n^2 ordered pairs of a list, averaged per list and then over lists; ``auto`` (default), ``given`` for
the lists that have a positive and ``all`` for the others. The mean is over the pairs of the batch.

A margin has a scale. ``scale`` multiplies the teacher's by a constant c. ``fit`` sets c to the ratio of the student's
standard deviation to the teacher's within the lists of the batch (without gradient), for a teacher of logits and a
student of cosines. Such a target moves with the student: what it teaches is proportions, and a student that cannot
follow shrinks. It is a figure of the whole batch, so micro-batches each fit their own. ``margin`` is a constant in the
place of the teacher's margins, of which then only the order counts: teachers that give no more than ranks are welcome.

By hand: s = (2, 1), t = (3, 1): (1 - 2)^2 = 1; with ``fit`` c = 1/2, and the loss is 0; with ``margin`` 3 it is 4.

Hofstätter, Althammer, Schröder, Sertkan, Hanbury 2020, arXiv:2010.02666.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from rerankdistill.cards import Card, parse
from rerankdistill.contracts import Scores
from rerankdistill.losses import _pairs, guards
from rerankdistill.types import Scale


class Options(Card):
    pairs: Literal["auto", "given", "all", "all_n2"] = "auto"
    fit: bool = False
    scale: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    margin: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """What the better document is to be ahead by, whatever the teacher's margin. None: the teacher's margin."""
    over: guards.Over = "own"

    @model_validator(mode="after")
    def _margin_stands_alone(self) -> Options:
        if self.margin is not None and (self.fit or self.scale != 1 or self.pairs == "all_n2"):
            raise ValueError("a constant margin knows no fit, no scale and no pairs = 'all_n2'")
        return self


class Kind:
    """See the module. With ``given`` a list without a positive that is scored has weight zero."""

    needs: frozenset[str] = frozenset({"student", "teacher"})
    eats: frozenset[Scale] = guards.VALUES

    def __init__(self, **options: Any) -> None:
        self.options = parse(Options, options, "loss margin_mse")
        if self.options.pairs == "given":
            self.needs = self.needs | {"positive"}
        if self.options.margin is not None:
            self.eats = guards.ORDERS

    def __call__(self, scores: Scores) -> tuple[Tensor, Tensor]:
        lists = guards.read(scores, "margin_mse", self.needs, self.options.over).compact()
        margin, residual = self.options.margin, lists.student
        if margin is None:
            residual = residual - self.options.scale * (_ratio(lists) if self.options.fit else 1.0) * lists.teacher
        pairs = self._pairs(lists)
        squares = (_pairs.gaps(residual, pairs) - (margin or 0.0)).square()
        return _pairs.reduce(squares, pairs, "mean_query" if self.options.pairs == "all_n2" else "mean_pairs")

    def _pairs(self, lists: guards.Lists) -> Tensor:
        both = _pairs.both(lists.use)
        if self.options.pairs == "all_n2":
            return both
        preferred = _pairs.above(lists.teacher, lists.use)
        if self.options.pairs == "all":
            return preferred
        positive = lists.is_positive()
        given = both & positive[:, :, None] & ~positive[:, None, :]
        if self.options.pairs == "given":
            return given
        return torch.where((lists.positive >= 0)[:, None, None], given, preferred)


def _ratio(lists: guards.Lists) -> Tensor:
    """Spread of the student over spread of the teacher, pooled over lists; 1 where either has none."""
    spreads = []
    for values in (lists.student.detach(), lists.teacher):
        mean = values.sum(1, keepdim=True) / lists.use.sum(1, keepdim=True).clamp(min=1)
        spreads.append(torch.where(lists.use, values - mean, 0.0).square().sum().sqrt())
    student, teacher = spreads
    known = (student > 0) & (teacher > 0)
    return torch.where(known, student / torch.where(known, teacher, 1.0), 1.0)
