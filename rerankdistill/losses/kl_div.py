r"""Listwise Kullback-Leibler divergence from the teacher's distribution over a list to the student's.

.. math:: \frac{c}{B} \sum_q \sum_i p_i \left[\log p_i - \log \mathrm{softmax}(s / \tau_s)_i\right], \quad
          p = (1 - \alpha)\, \mathrm{softmax}(t / \tau_t) + \alpha\, y / \textstyle\sum y

Summed over a list, averaged over queries ("batchmean"); the factor c (``multiplier``) is explicit: 1, where others
multiply by the square of a temperature. The gradient for alpha = 0, c = 1 is (p_S - p_T) / (tau_s B).

By hand: s = (0, 0), t = (ln 3, 0): p_T = (3/4, 1/4), so 3/4 ln 3/2 + 1/4 ln 1/2 = 0.1308.

Hinton, Vinyals, Dean 2015, arXiv:1503.02531. Over the documents of a batch: Lin, Yang, Lin 2020, arXiv:2010.11386.
"""

from __future__ import annotations

from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from rerankdistill.cards import parse
from rerankdistill.contracts import Scores
from rerankdistill.losses import guards
from rerankdistill.types import Scale


class Options(guards.Tempered):
    multiplier: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    alpha: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the label in the target. A list without a label above zero follows the teacher alone."""


class Kind:
    """See the module. Only scored cells take part: a labelled document that the teacher did not score is left out."""

    needs: frozenset[str] = frozenset({"student", "teacher"})
    eats: frozenset[Scale] = guards.VALUES

    def __init__(self, **options: Any) -> None:
        self.options = parse(Options, options, "loss kl_div")
        if self.options.alpha:
            self.needs = self.needs | {"label"}

    def __call__(self, scores: Scores) -> tuple[Tensor, Tensor]:
        options = self.options
        lists = guards.read(scores, "kl_div", self.needs, options.over)
        student, log_target = guards.distributions(lists, options)
        target = torch.where(lists.use, log_target.exp(), 0.0)
        entropy = target * log_target
        if options.alpha:
            mass = lists.label.sum(1, keepdim=True)
            share = options.alpha * (mass > 0).to(target.dtype)
            target = (1 - share) * target + share * lists.label / torch.where(mass > 0, mass, 1.0)
            entropy = torch.xlogy(target, target)
        return options.multiplier * (entropy - target * student).sum(), lists.count()
