r"""Plackett-Luce distillation: the teacher's order pick by pick, each pick weighing what the teacher thinks of it.

.. math:: \frac{1}{B} \sum_q \sum_{k} p_{\pi(k)} \left[\log \sum_{l \ge k} e^{s_{\pi(l)}} - s_{\pi(k)}\right], \quad
          p = \mathrm{softmax}(t / \tau_t)

pi is the teacher's order; with ``label_first`` the given positive is picked first, whatever the teacher thinks of it,
and still weighs its own p. Tied documents are picked by column. Where the teacher is sure of one document this is the
cross-entropy of that document; where it is not, the picks below teach too.

By hand: s = (0, 0), t = (ln 3, 0): 3/4 ln 2 + 1/4 (0 - 0) = 0.5199.

Bassam, Zhu, Bian 2025 (PLD), arXiv:2506.12542, there for the classification of images.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rerankdistill.cards import Card, parse
from rerankdistill.contracts import Scores
from rerankdistill.losses import _ranks, guards
from rerankdistill.types import Scale


class Options(Card):
    tau_teacher: guards.Temperature = 1.0
    """Divides the teacher's scores; higher lets later picks weigh more."""
    label_first: bool = False
    """The given positive is picked first. A list without one follows the teacher alone."""
    over: guards.Over = "own"


class Kind:
    """See the module."""

    needs: frozenset[str] = frozenset({"student", "teacher"})
    eats: frozenset[Scale] = guards.VALUES

    def __init__(self, **options: Any) -> None:
        self.options = parse(Options, options, "loss plackett_luce")
        if self.options.label_first:
            self.needs = self.needs | {"positive"}

    def __call__(self, scores: Scores) -> tuple[Tensor, Tensor]:
        lists = guards.read(scores, "plackett_luce", self.needs, self.options.over).compact()
        preference = lists.teacher
        if self.options.label_first:
            places = torch.arange(preference.shape[1], device=preference.device)
            preference = torch.where(places == lists.positive[:, None], torch.inf, preference)
        columns = _ranks.order(preference, lists.use)
        losses, there = _ranks.steps(lists.student, lists.use, columns)
        weights = guards.log_softmax(lists.teacher, lists.use, self.options.tau_teacher).exp().gather(1, columns)
        return torch.where(there, weights * losses, 0.0).sum(), lists.count()
