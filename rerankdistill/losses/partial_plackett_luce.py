r"""Of two documents that a teacher compared, the preferred is picked first, then the other, before the batch's rest.

.. math:: -\frac{1}{P} \sum_{(q, i, j)} \log \frac{e^{s_i / \tau}}{e^{s_i / \tau} + e^{s_j / \tau} + R_q} +
          \log \frac{e^{s_j / \tau}}{e^{s_j / \tau} + R_q}, \quad R_q = \sum_{d \notin D_q} e^{s_d / \tau}

i is what the teacher prefers to j, however surely; a tie says nothing. D_q is the query's own list: what it holds
besides the two takes no part, nor does another query's document that is labelled for q or masked as a likely false
negative. The mean is over comparisons. The rest holds the student where it was; where there is none, as for a student
that reads pairs, this is ``pairwise_preference`` with sure preferences.

By hand: s = (ln 2, 0) and one document of another query at 0, tau = 1: ln 4/2 + ln 2/1 = 1.3863.

The second stage of Kim, Baek 2025 (Syntriever), arXiv:2502.03824; a scale of 20 is a tau of 0.05.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rerankdistill.cards import Card, parse
from rerankdistill.contracts import Scores
from rerankdistill.losses import guards
from rerankdistill.types import Scale


class Options(Card):
    tau: guards.Temperature = 0.05
    """For cosines; a cross-encoder's logits want 1."""


class Kind:
    """See the module. Without own lists, the documents that a query's comparisons name are taken for its list."""

    needs: frozenset[str] = frozenset({"student", "preferences"})
    eats: frozenset[Scale] = frozenset()

    def __init__(self, **options: Any) -> None:
        self.options = parse(Options, options, "loss partial_plackett_luce")

    def __call__(self, scores: Scores) -> tuple[Tensor, Tensor]:
        lists = guards.read(scores, "partial_plackett_luce", self.needs, "batch")
        said = guards.comparisons(scores, lists.use, "partial_plackett_luce")
        sure = said.probability != 0.5
        row, first, second = said.row[sure], said.first[sure], said.second[sure]
        turned = said.probability[sure] < 0.5
        better, worse = torch.where(turned, second, first), torch.where(turned, first, second)
        own = torch.zeros_like(lists.use) if scores.own is None else scores.own.bool().clone()
        own[said.row, said.first] = own[said.row, said.second] = True
        rest = (lists.use & ~own & ~((lists.label > 0) | lists.masked))[row]
        student, places = lists.student[row], torch.arange(rest.shape[1], device=rest.device)
        at_better, at_worse = places == better[:, None], places == worse[:, None]
        first_pick = guards.log_softmax(student, rest | at_better | at_worse, self.options.tau)
        second_pick = guards.log_softmax(student, rest | at_worse, self.options.tau)
        chances = torch.where(at_better, first_pick, 0.0) + torch.where(at_worse, second_pick, 0.0)
        return -chances.sum(), chances.new_tensor(len(row))
