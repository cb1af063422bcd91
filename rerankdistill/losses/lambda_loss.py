r"""LambdaLoss: RankNet, each pair weighing what nDCG would change if the student swapped the two.

.. math:: w_{ij} \log\left(1 + e^{-\sigma (s_i - s_j)}\right) \quad \text{for every pair with } y_i > y_j

With G = (2^y - 1) / ideal DCG and r the student's ranks (ties by column), all without gradient, ``scheme`` decides w:
``lambdarank``, abs(1/log2(1 + r_i) - 1/log2(1 + r_j)) abs(G_i - G_j); ``ndcg2``, abs(1/log2(1 + d) - 1/log2(2 + d))
abs(G_i - G_j) with d = abs(r_i - r_j), a tighter bound; ``ndcg2pp`` (default), the first plus ``mu`` times the second.

y is ``grades``: one over the teacher's rank (``teacher``), which any order gives, or the labels (``label``). The
natural logarithm (others divide by ln 2).

By hand: s = (0, 0), y = (1, 0), ``lambdarank``: (1 - 1/log2 3) (1 - 0) ln 2 = 0.2558.

Wang, Li, Golbandi, Bendersky, Najork 2018, "The LambdaLoss framework for ranking metric optimization", CIKM. From a
language model's permutation: Sun et al. 2023, arXiv:2304.09542.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import logsigmoid

from rerankdistill.cards import Card, parse
from rerankdistill.contracts import Scores
from rerankdistill.losses import _pairs, _ranks, guards
from rerankdistill.types import Scale


class Options(Card):
    scheme: Literal["lambdarank", "ndcg2", "ndcg2pp"] = "ndcg2pp"
    mu: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 10.0
    """For ``ndcg2pp`` alone."""
    sigma: Annotated[float, Field(gt=0, le=1e4, allow_inf_nan=False)] = 1.0
    """Steepness; a student that scores by cosine wants about 20."""
    grades: _ranks.Grades = "teacher"
    k: Annotated[int, Field(gt=0)] | None = None
    """nDCG@k of the student's list: which pairs count, and the ideal. None: the whole list."""
    within: Literal["either", "both"] = "either"
    """How many of a pair stand in the student's top k; with ``both`` a document below it can never rise."""
    reduction: _pairs.Reduction = "mean_query"
    over: guards.Over = "own"


class Kind:
    """See the module. A list whose grades are all equal has no pair and weight zero."""

    needs: frozenset[str] = frozenset({"student", "teacher"})
    eats: frozenset[Scale] = guards.ORDERS

    def __init__(self, **options: Any) -> None:
        self.options = parse(Options, options, "loss lambda_loss")
        if self.options.grades == "label":
            self.needs, self.eats = frozenset({"student", "label"}), frozenset()

    def __call__(self, scores: Scores) -> tuple[Tensor, Tensor]:
        lists = guards.read(scores, "lambda_loss", self.needs, self.options.over).compact()
        grades = _ranks.grades(lists, self.options.grades)
        ranks = _ranks.by_column(lists.student.detach(), lists.use)
        pairs = self._pairs(lists.use, grades, ranks)
        margins = _pairs.gaps(lists.student, pairs)
        losses = -self._weights(grades, ranks) * logsigmoid(self.options.sigma * margins)
        return _pairs.reduce(losses, pairs, self.options.reduction)

    def _pairs(self, use: Tensor, grades: Tensor, ranks: Tensor) -> Tensor:
        pairs = _pairs.above(grades, use)
        if self.options.k is None:
            return pairs
        top = ranks <= self.options.k
        if self.options.within == "both":
            return pairs & top[:, :, None] & top[:, None, :]
        return pairs & (top[:, :, None] | top[:, None, :])

    def _weights(self, grades: Tensor, ranks: Tensor) -> Tensor:
        gains, _ = _ranks.shares(grades, "exponential", self.options.k)
        change = (gains[:, :, None] - gains[:, None, :]).abs()
        discounts = 1 / torch.log2(1 + ranks)
        swap = (discounts[:, :, None] - discounts[:, None, :]).abs()
        if self.options.scheme == "lambdarank":
            return swap * change
        apart = (ranks[:, :, None] - ranks[:, None, :]).abs().clamp(min=1)  # 0 on the diagonal alone, no pair
        bound = 1 / torch.log2(1 + apart) - 1 / torch.log2(2 + apart)
        return (bound if self.options.scheme == "ndcg2" else self.options.mu * bound + swap) * change
