r"""RankNet: of two documents, the one that the teacher prefers is to score higher.

.. math:: \log\left(1 + e^{-\sigma (s_i - s_j)}\right) \quad \text{for every pair with } t_i > t_j

Only the teacher's order counts, so teachers that give no more than ranks are welcome; ties make no pair. The natural
logarithm (others divide by ln 2). ``reduction``: mean over a list's pairs and then over lists (``mean_query``, so that
long lists do not dominate), or over all pairs of the batch (``mean_pairs``). ``sigma`` multiplies.

With ``targets`` = ``soft`` the teacher says how surely it prefers i: cross-entropy of sigmoid(t_i - t_j) for every two
documents, ties included. That needs a teacher whose differences mean something. With ``weights`` = ``ranks`` a pair
counts 1 / (r_i + r_j), r being the teacher's ranks from 1 (ties by column), still over the *number* of pairs.

By hand: s = (ln 3, 0), t = (1, 0): ln(1 + 1/3) = 0.2877; ``ranks`` weighs it 1 / (1 + 2): 0.0959.

Burges et al. 2005, "Learning to rank using gradient descent", ICML. From a language model's permutation: Sun et al.
2023, arXiv:2304.09542. Soft targets: Abdallah et al. 2025 (DeAR), arXiv:2508.16998. Weights: Gangi Reddy et al. 2024
(FIRST), arXiv:2406.15657.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field
from torch import Tensor
from torch.nn.functional import logsigmoid

from rerankdistill.cards import Card, parse
from rerankdistill.contracts import Scores
from rerankdistill.losses import _pairs, _ranks, guards
from rerankdistill.types import Scale


class Options(Card):
    sigma: Annotated[float, Field(gt=0, le=1e4, allow_inf_nan=False)] = 1.0
    """Steepness; a student that scores by cosine wants about 20."""
    targets: Literal["hard", "soft"] = "hard"
    weights: Literal["even", "ranks"] = "even"
    """What a pair counts; ``ranks`` makes the top of the list count most."""
    reduction: _pairs.Reduction = "mean_query"
    over: guards.Over = "own"


class Kind:
    """See the module. A list whose scores are all equal has no pair and weight zero, unless targets are soft."""

    needs: frozenset[str] = frozenset({"student", "teacher"})
    eats: frozenset[Scale] = guards.ORDERS

    def __init__(self, **options: Any) -> None:
        self.options = parse(Options, options, "loss ranknet")
        if self.options.targets == "soft":
            self.eats = guards.VALUES

    def __call__(self, scores: Scores) -> tuple[Tensor, Tensor]:
        lists = guards.read(scores, "ranknet", self.needs, self.options.over).compact()
        pairs = self._pairs(lists)
        margins = _pairs.gaps(lists.student, pairs)
        losses = -logsigmoid(self.options.sigma * margins)
        if self.options.targets == "soft":
            losses = losses + (-_pairs.gaps(lists.teacher, pairs)).sigmoid() * self.options.sigma * margins
        if self.options.weights == "ranks":
            ranks = _ranks.by_column(lists.teacher, lists.use)
            losses = losses / (ranks[:, :, None] + ranks[:, None, :])
        return _pairs.reduce(losses, pairs, self.options.reduction)

    def _pairs(self, lists: guards.Lists) -> Tensor:
        """Which (i, j) count: i preferred to j, or with soft targets every two documents once."""
        if self.options.targets == "soft":
            return _pairs.both(lists.use).triu(1)
        return _pairs.above(lists.teacher, lists.use)
