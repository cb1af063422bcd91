r"""LEAD: layer by layer the student's distribution over a list follows the teacher's, whose better layers count more.

.. math:: \frac{1}{B} \sum_q \sum_l w_l\, \mathrm{KL}\left(\mathrm{softmax}(t^l_q / \tau_t) \,\|\,
          \mathrm{softmax}(s^l_q / \tau_s)\right), \quad w = \mathrm{softmax}_l\left(-\mathrm{CE}(t^l) / \tau_l\right)

CE(t^l) is the teacher's cross-entropy against the positives at its layer l, over the list and averaged over the queries
that have one (``batch``, as published), so micro-batches each have their own weights; ``query`` takes each query's own,
``even`` all layers alike. No gradient goes through w or t. As published the student is not divided by a temperature:
``tau_student`` does so.

By hand: one layer, s = (0, 0), t = (ln 3, 0): 3/4 ln 3/2 + 1/4 ln 1/2 = 0.1308, its weight being 1. A second layer with
s = t = (0, 0), the first the positive: CE = (ln 4/3, ln 2), so at tau_l = 1 w = (3/4, 1/2) / (5/4) and 0.6 * 0.1308.

Sun et al. 2023 (LEAD), arXiv:2212.05225.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from rerankdistill.cards import parse
from rerankdistill.contracts import Scores
from rerankdistill.losses import guards
from rerankdistill.types import Scale


class Options(guards.Tempered):
    tau_layer: guards.Temperature = 10.0
    """Higher makes layers count more alike."""
    weights: Literal["batch", "query", "even"] = "batch"
    over: guards.Over = "batch"


class Kind:
    """See the module. Where no query has a positive, all layers count alike."""

    needs: frozenset[str] = frozenset({"layers", "positive"})
    eats: frozenset[Scale] = frozenset()

    def __init__(self, **options: Any) -> None:
        self.options = parse(Options, options, "loss layer_alignment")
        if self.options.weights == "even":
            self.needs = frozenset({"layers"})

    def __call__(self, scores: Scores) -> tuple[Tensor, Tensor]:
        options = self.options
        lists = guards.read(scores, "layer_alignment", self.needs, options.over)
        student, teacher = guards.layers(scores, lists.use, "layer_alignment")
        mine = _logs(student, lists.use, options.tau_student)
        theirs = _logs(teacher, lists.use, options.tau_teacher)
        apart = torch.where(lists.use, theirs.exp() * (theirs - mine), 0.0).sum(2)
        return (self._weights(teacher, lists) * apart).sum(), lists.count()

    def _weights(self, teacher: Tensor, lists: guards.Lists) -> Tensor:
        """``[l, b]``, of which each column adds up to one."""
        if self.options.weights == "even" or not lists.use.numel():
            return torch.full_like(teacher[:, :, :1].sum(2), 1 / len(teacher))
        surprise = -torch.where(lists.is_positive(), _logs(teacher, lists.use, 1.0), 0.0).sum(2)
        if self.options.weights == "batch":
            surprise = (surprise.sum(1) / (lists.positive >= 0).sum().clamp(min=1))[:, None].expand_as(surprise)
        return (-surprise / self.options.tau_layer).softmax(0)


def _logs(layers: Tensor, use: Tensor, tau: float) -> Tensor:
    flat = guards.log_softmax(layers.flatten(0, 1), use.repeat(len(layers), 1), tau)
    return flat.view_as(layers)
