r"""Student and teacher scores of a list are to correlate: proportions alone, neither unit nor zero.

.. math:: \frac{1}{B} \sum_q \left[1 - \mathrm{corr}(s_q, t_q)\right]

No temperature is to be chosen, whatever unit the two score in. From 0 (in proportion) to 2 (opposite).

By hand: s = (0, 0, 1), t = (2, 0, 1): centred (-1, -1, 2)/3 and (1, -1, 0), whose product is 0, so 1 - 0 = 1.

The inter-class term of Huang, You, Wang, Qian, Xu 2022 (DIST), arXiv:2205.10536.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rerankdistill.cards import Card, parse
from rerankdistill.contracts import Scores
from rerankdistill.losses import guards
from rerankdistill.types import Scale

LEAST = 1e-4
"""A spread of the student below this counts as this, so that a constant student gets a gradient, and a finite one."""


class Options(Card):
    over: guards.Over = "own"


class Kind:
    """See the module. A list whose teacher scores are all equal has weight zero."""

    needs: frozenset[str] = frozenset({"student", "teacher"})
    eats: frozenset[Scale] = guards.VALUES

    def __init__(self, **options: Any) -> None:
        self.options = parse(Options, options, "loss pearson")

    def __call__(self, scores: Scores) -> tuple[Tensor, Tensor]:
        lists = guards.read(scores, "pearson", self.needs, self.options.over).compact()
        student, teacher = _centred(lists.student, lists.use), _centred(lists.teacher, lists.use)
        varied = _varied(lists.teacher, lists.use)
        # over its largest first: the square of a tiny probability would be zero
        teacher = teacher / torch.where(varied, teacher.abs().amax(1), 1.0)[:, None]
        spread = student.square().sum(1).clamp(min=LEAST**2).sqrt()
        aligned = (student * teacher).sum(1) / torch.where(varied, spread * teacher.square().sum(1).sqrt(), 1.0)
        return torch.where(varied, 1 - aligned, 0.0).sum(), varied.sum().to(aligned.dtype)


def _varied(values: Tensor, use: Tensor) -> Tensor:
    """``[b]`` whether any two differ. Not by their spread: rounding the mean of equal values leaves them one."""
    highest = torch.where(use, values, -torch.inf).amax(1)
    return highest > torch.where(use, values, torch.inf).amin(1)


def _centred(values: Tensor, use: Tensor) -> Tensor:
    mean = values.sum(1, keepdim=True) / use.sum(1, keepdim=True).clamp(min=1)
    return torch.where(use, values - mean, 0.0)
