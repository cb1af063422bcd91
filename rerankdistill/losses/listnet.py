r"""ListNet: cross-entropy of the student's distribution over a list against the teacher's.

.. math:: -\frac{1}{B} \sum_q \sum_i p_i \log \mathrm{softmax}(s / \tau_s)_i, \quad p = \mathrm{softmax}(t / \tau_t)

The gradient is that of ``kl_div``; the value is higher by the entropy of p, so that it does not fall to zero when the
student has learnt all there is.

By hand: s = (0, 0), t = (ln 3, 0): p = (3/4, 1/4), so 3/4 ln 2 + 1/4 ln 2 = 0.6931.

Cao, Qin, Liu, Tsai, Li 2007, "Learning to rank: from pairwise approach to listwise approach", ICML.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rerankdistill.cards import parse
from rerankdistill.contracts import Scores
from rerankdistill.losses import guards
from rerankdistill.types import Scale


class Options(guards.Tempered):
    pass


class Kind:
    """See the module. No epsilon inside the logarithm: it is taken in log space."""

    needs: frozenset[str] = frozenset({"student", "teacher"})
    eats: frozenset[Scale] = guards.VALUES

    def __init__(self, **options: Any) -> None:
        self.options = parse(Options, options, "loss listnet")

    def __call__(self, scores: Scores) -> tuple[Tensor, Tensor]:
        lists = guards.read(scores, "listnet", self.needs, self.options.over).compact()
        student, teacher = guards.distributions(lists, self.options)
        target = torch.where(lists.use, teacher.exp(), 0.0)
        return -(target * student).sum(), lists.count()
