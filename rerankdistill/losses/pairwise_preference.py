r"""PairDistill: of two documents that a teacher compared, the student is to prefer the same one, and as surely.

.. math:: \frac{1}{P} \sum_{(q, i, j)} \mathrm{KL}\left([p, 1 - p] \,\|\,
          \mathrm{softmax}(\sigma s_i, \sigma s_j)\right)

p is P(i is better than j), a tie 1/2. The mean is over the comparisons of the batch. ``form``: ``kl`` (default), 0
where the student agrees; ``bce``, the cross-entropy, whose gradient is the same and whose value is higher by p's
entropy.

By hand: s = (0, 0), p = 3/4: 3/4 ln 3/2 + 1/4 ln 1/2 = 0.1308; ``bce`` ln 2 = 0.6931.

Huang, Chen 2024 (PairDistill), arXiv:2410.01383, beside a loss on scores: "kl_div + 3 pairwise_preference".
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import logsigmoid

from rerankdistill.cards import Card, parse
from rerankdistill.contracts import Scores
from rerankdistill.losses import guards
from rerankdistill.types import Scale


class Options(Card):
    form: Literal["kl", "bce"] = "kl"
    sigma: Annotated[float, Field(gt=0, le=1e4, allow_inf_nan=False)] = 1.0
    """Steepness; a student that scores by cosine wants about 20."""


class Kind:
    """See the module. A comparison of a document that is not in the list counts nothing."""

    needs: frozenset[str] = frozenset({"student", "preferences"})
    eats: frozenset[Scale] = frozenset()

    def __init__(self, **options: Any) -> None:
        self.options = parse(Options, options, "loss pairwise_preference")

    def __call__(self, scores: Scores) -> tuple[Tensor, Tensor]:
        lists = guards.read(scores, "pairwise_preference", self.needs, "batch")
        said = guards.comparisons(scores, lists.use, "pairwise_preference")
        share = said.probability
        margins = self.options.sigma * (lists.student[said.row, said.first] - lists.student[said.row, said.second])
        losses = -share * logsigmoid(margins) - (1 - share) * logsigmoid(-margins)
        if self.options.form == "kl":
            losses = losses + torch.xlogy(share, share) + torch.xlogy(1 - share, 1 - share)
        return losses.sum(), losses.new_tensor(len(losses))
