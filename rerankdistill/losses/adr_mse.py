r"""ADR-MSE: the ranks that the student's scores imply are to equal the teacher's, at the top above all.

.. math:: \frac{1}{N} \sum_i \frac{1}{\log_2(1 + r_i)} \left(r_i - R_i\right)^2, \quad
          R_i = 1 + \sum_{j \ne i} \mathrm{sigmoid}(\alpha (s_j - s_i))

r are the teacher's ranks, R the student's, made smooth; the mean is over the documents of the batch. Only the teacher's
order counts, so teachers that give no more than ranks are welcome. Tied documents share the mean of their ranks
(``average``, which equal student scores can reach), or take them by column (``column``). ``discount``: ``log2``,
``reciprocal`` (1 / r), ``none``.

By hand: s = (0, 0), t = (1, 0), alpha = 1: R = (1.5, 1.5), so (0.25 + 0.25 / log2 3) / 2 = 0.2039.

Schlatt et al. 2024 (Rank-DistiLLM), arXiv:2405.07920. Smooth ranks: Qin, Liu, Li 2010, "A general approximation
framework for direct optimization of information retrieval measures", Information Retrieval 13.
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
    alpha: Annotated[float, Field(gt=0, le=1e4, allow_inf_nan=False)] = 1.0
    """Multiplies scores; higher is nearer to hard ranks, with less gradient. Cosines want about 20."""
    discount: Literal["log2", "reciprocal", "none"] = "log2"
    ties: Literal["average", "column"] = "average"
    over: guards.Over = "own"


class Kind:
    """See the module."""

    needs: frozenset[str] = frozenset({"student", "teacher"})
    eats: frozenset[Scale] = guards.ORDERS

    def __init__(self, **options: Any) -> None:
        self.options = parse(Options, options, "loss adr_mse")

    def __call__(self, scores: Scores) -> tuple[Tensor, Tensor]:
        lists = guards.read(scores, "adr_mse", self.needs, self.options.over).compact()
        ranked = _ranks.average if self.options.ties == "average" else _ranks.by_column
        wanted = ranked(lists.teacher, lists.use)
        errors = (wanted - _ranks.approximate(lists.student, lists.use, self.options.alpha)).square()
        if self.options.discount == "log2":
            errors = errors / torch.log2(1 + wanted)
        elif self.options.discount == "reciprocal":
            errors = errors / wanted
        return torch.where(lists.use, errors, 0.0).sum(), lists.use.sum().to(errors.dtype)
