r"""Other divergences between the student's distribution over a list and the teacher's than ``kl_div``.

.. math:: \frac{c}{B} \sum_q D(p_T, p_S), \quad
          p_T = \mathrm{softmax}(t / \tau_t), \; p_S = \mathrm{softmax}(s / \tau_s)

``form`` decides D. ``js`` (default): half of KL(p_T, m) and half of KL(p_S, m) with m halfway between the two, at most
ln 2 however far apart they are. ``reverse``: KL(p_S, p_T), which asks the student to put nothing where the teacher has
nothing rather than something wherever the teacher has something. ``symmetric``: the mean of both directions. ``skew``:
KL(p_T, a p_T + (1 - a) p_S) with a small a, bounded where the student leaves out what the teacher holds likely.
Summed over a list, averaged over queries; the factor c is ``multiplier``.

By hand: s = (0, 0), t = (ln 3, 0): ``reverse`` is 1/2 ln 2/3 + 1/2 ln 2 = 0.1438.

Jensen-Shannon: Lin 1991, "Divergence measures based on the Shannon entropy". Reverse: Gu et al. 2023, arXiv:2306.08543.
Skew: Ko et al. 2024, arXiv:2402.03898.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from rerankdistill.cards import parse
from rerankdistill.contracts import Scores
from rerankdistill.losses import guards
from rerankdistill.types import Scale


class Options(guards.Tempered):
    form: Literal["js", "reverse", "symmetric", "skew"] = "js"
    skew: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Share of the teacher in what it is compared with; for ``skew`` alone."""
    multiplier: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0


class Kind:
    """See the module. ``reverse`` and ``symmetric`` punish hard where the teacher is nearly one-hot: raise its tau."""

    needs: frozenset[str] = frozenset({"student", "teacher"})
    eats: frozenset[Scale] = guards.VALUES

    def __init__(self, **options: Any) -> None:
        self.options = parse(Options, options, "loss divergence")

    def __call__(self, scores: Scores) -> tuple[Tensor, Tensor]:
        options = self.options
        lists = guards.read(scores, "divergence", self.needs, options.over).compact()
        student, teacher = guards.distributions(lists, options)
        return options.multiplier * self._between(student, teacher, lists.use), lists.count()

    def _between(self, student: Tensor, teacher: Tensor, use: Tensor) -> Tensor:
        form = self.options.form
        if form == "reverse":
            return _kl(student, teacher, use)
        if form == "symmetric":
            return (_kl(student, teacher, use) + _kl(teacher, student, use)) / 2
        if form == "skew":
            return _kl(teacher, _mix(teacher, student, self.options.skew), use)
        middle = _mix(teacher, student, 0.5)
        return (_kl(teacher, middle, use) + _kl(student, middle, use)) / 2


def _kl(logs: Tensor, other: Tensor, use: Tensor) -> Tensor:
    """Sum over lists of KL(exp(logs), exp(other))."""
    return torch.where(use, logs.exp() * (logs - other), 0.0).sum()


def _mix(first: Tensor, second: Tensor, share: float) -> Tensor:
    """Log of ``share`` of the first distribution and the rest of the second, without leaving log space."""
    return torch.logaddexp(first + math.log(share), second + math.log1p(-share))
