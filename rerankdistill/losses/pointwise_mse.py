r"""One document at a time: the student's score is to equal the teacher's.

.. math:: \frac{1}{N} \sum_i \left[s_i - c\, t_i\right]^2

The mean is over the documents of the batch; a list may hold just one. The student learns the teacher's zero as well,
which no ranking needs: ``margin_mse`` leaves it free. ``scale`` is c, for a student that scores in another unit.

By hand: s = (1, 0), t = (3, 1): (4 + 1) / 2 = 2.5.

Regression on a teacher's scores: Ba, Caruana 2014, "Do deep nets really need to be deep?", arXiv:1312.6184.
"""

from __future__ import annotations

from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from rerankdistill.cards import Card, parse
from rerankdistill.contracts import Scores
from rerankdistill.losses import guards
from rerankdistill.types import Scale


class Options(Card):
    scale: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    over: guards.Over = "own"


class Kind:
    """See the module."""

    needs: frozenset[str] = frozenset({"student", "teacher"})
    eats: frozenset[Scale] = guards.VALUES

    def __init__(self, **options: Any) -> None:
        self.options = parse(Options, options, "loss pointwise_mse")

    def __call__(self, scores: Scores) -> tuple[Tensor, Tensor]:
        lists = guards.read(scores, "pointwise_mse", self.needs, self.options.over, alone=True)
        squares = torch.where(lists.use, lists.student - self.options.scale * lists.teacher, 0.0).square()
        return squares.sum(), lists.use.sum().to(squares.dtype)
