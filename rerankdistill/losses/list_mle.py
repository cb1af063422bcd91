r"""ListMLE: the teacher's order is to be likely when the student picks one document after the other.

.. math:: \frac{1}{B} \sum_q \sum_{k} \left[\log \sum_{l \ge k} e^{s_{\pi(l)}} - s_{\pi(k)}\right], \quad
          \pi = \text{the teacher's order}

Only the order counts, so teachers that give no more than ranks are welcome; tied documents are picked by column. The
documents may come in any order (others assume them sorted). ``positions``: the picks of a list are added up (``sum``),
averaged over all picks of the batch (``mean``), or weighted by 2^(n-r) - 1 for pick r = 0, 1, … of n (``weighted``, the
weights of a list sum to one; others count r from 1), so that the top counts most. ``top_k`` keeps the first picks only.

By hand: s = (0, ln 2, 0), t = (3, 2, 1): (ln 4 - 0) + (ln 3 - ln 2) + 0 = 1.7918.

Xia, Liu, Wang, Zhang, Li 2008, "Listwise approach to learning to rank", ICML. Weighted: Lan, Zhu, Guo, Niu, Cheng 2014,
"Position-aware ListMLE", UAI.
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
    positions: Literal["sum", "mean", "weighted"] = "sum"
    """How the picks of a list are put together."""
    top_k: Annotated[int, Field(gt=0)] | None = None
    """How many picks count; None: all. 1 is the contrast of the teacher's first against the rest."""
    over: guards.Over = "own"


class Kind:
    """See the module. The last pick has no rival and adds nothing."""

    needs: frozenset[str] = frozenset({"student", "teacher"})
    eats: frozenset[Scale] = guards.ORDERS

    def __init__(self, **options: Any) -> None:
        self.options = parse(Options, options, "loss list_mle")

    def __call__(self, scores: Scores) -> tuple[Tensor, Tensor]:
        positions, top_k = self.options.positions, self.options.top_k
        lists = guards.read(scores, "list_mle", self.needs, self.options.over).compact()
        columns = _ranks.order(lists.teacher, lists.use)
        losses, there = _ranks.steps(lists.student, lists.use, columns)
        losses, there = losses[:, :top_k], there[:, :top_k]
        if positions == "mean":
            return losses.sum(), there.sum().to(losses.dtype)
        if positions == "weighted":
            losses = _weights(lists.use, there, losses.dtype) * losses
        return losses.sum(), lists.count()


def _weights(use: Tensor, there: Tensor, dtype: torch.dtype) -> Tensor:
    """2^(n-r) - 1, normalised over the picks that count; computed over 2^n, which a list of 100 would overflow."""
    length = use.sum(1, keepdim=True).to(dtype)
    places = torch.arange(there.shape[1], device=use.device, dtype=dtype)
    weights = torch.where(there, torch.exp2(-places) - torch.exp2(-length), 0.0)
    total = weights.sum(1, keepdim=True)
    return weights / torch.where(total > 0, total, 1.0)
