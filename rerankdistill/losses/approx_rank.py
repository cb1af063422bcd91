r"""nDCG or reciprocal rank of the student's list itself, made smooth: ApproxNDCG, ApproxMRR.

.. math:: 1 - \frac{1}{\mathrm{ideal}} \sum_i \frac{g_i}{\log_2(1 + R_i)} \quad\text{or}\quad
          1 - \max_i \frac{\min(y_i, 1)}{R_i}, \qquad R_i = 1 + \sum_{j \ne i} \mathrm{sigmoid}(\alpha (s_j - s_i))

``measure`` is ``ndcg`` (default) or ``mrr``; the mean is over queries. y is ``grades``: one over the teacher's rank
(``teacher``), which any order gives, or the labels (``label``). nDCG's g is 2^y - 1 or y, by ``gain``.

By hand: s = (0, 0), y = (1, 0), alpha = 1: R = (1.5, 1.5), so nDCG gives 1 - 1 / log2 2.5 = 0.2435 and MRR 1/3.

Qin, Liu, Li 2010, "A general approximation framework for direct optimization of information retrieval measures",
Information Retrieval 13.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from rerankdistill.cards import Card, parse
from rerankdistill.contracts import Scores
from rerankdistill.losses import _ranks, guards
from rerankdistill.types import Scale


class Options(Card):
    measure: Literal["ndcg", "mrr"] = "ndcg"
    alpha: Annotated[float, Field(gt=0, le=1e4, allow_inf_nan=False)] = 1.0
    """Multiplies scores; higher is nearer to the measure, with less gradient. Cosines want about 20."""
    grades: _ranks.Grades = "teacher"
    gain: _ranks.Gain = "exponential"
    """For ``ndcg`` alone."""
    over: guards.Over = "own"


class Kind:
    """See the module. A list in which nothing has a grade above zero has weight zero."""

    needs: frozenset[str] = frozenset({"student", "teacher"})
    eats: frozenset[Scale] = guards.ORDERS

    def __init__(self, **options: Any) -> None:
        self.options = parse(Options, options, "loss approx_rank")
        if self.options.grades == "label":
            self.needs, self.eats = frozenset({"student", "label"}), frozenset()

    def __call__(self, scores: Scores) -> tuple[Tensor, Tensor]:
        lists = guards.read(scores, "approx_rank", self.needs, self.options.over).compact()
        grades = _ranks.grades(lists, self.options.grades)
        ranks = _ranks.approximate(lists.student, lists.use, self.options.alpha)
        shares, worthy = _ranks.shares(grades, self.options.gain)
        if self.options.measure == "ndcg":
            reached = (shares / torch.log2(1 + ranks)).sum(1)
        else:
            reached = (grades.clamp(max=1) / ranks).max(1).values
        return torch.where(worthy, 1 - reached, 0.0).sum(), worthy.sum().to(reached.dtype)
