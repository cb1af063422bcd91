r"""InfoNCE over the documents of a batch: labels only, no teacher. The control of every distillation.

.. math:: -\frac{1}{B} \sum_q \log \frac{e^{s_{q+} / \tau}}{\sum_{d \in D_q} e^{s_{qd} / \tau}}

D_q holds every valid document of the batch: the query's own and the other queries'. A document that is labelled for
the query besides its positive, or masked as a likely false negative, is no negative and leaves the denominator.

With ``symmetric`` the positive is to find its query among the queries of the batch as well: the same with e^{s_{q'+}}
of every query q' in the denominator, but those for which that document is the positive too, or labelled, or masked. A
query's loss is the mean of its two directions, or the one that has a rival. It needs a student that compares vectors:
where a column is each query's own list, another query's cell is another document.

By hand: s = (ln 3, 0), tau = 1, the first is the positive: -ln 3/4 = 0.2877; ``symmetric``, s = ((ln 3, 0), (0, 0)) and
the diagonal positive: (ln 4/3 + ln 4/3) / 2 and (ln 2 + ln 2) / 2, so their mean 0.4904.

van den Oord, Li, Vinyals 2018, arXiv:1807.03748. In-batch for passages: Karpukhin et al. 2020, arXiv:2004.04906. Both
directions: Radford et al. 2021, arXiv:2103.00020.
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
    symmetric: bool = False
    """Also from each positive to the queries of the batch."""


class Kind:
    """See the module. A query without a positive has weight zero."""

    needs: frozenset[str] = frozenset({"student", "positive"})
    eats: frozenset[Scale] = frozenset()

    def __init__(self, **options: Any) -> None:
        self.options = parse(Options, options, "loss infonce")

    def __call__(self, scores: Scores) -> tuple[Tensor, Tensor]:
        lists = guards.read(scores, "infonce", self.needs, "batch")
        losses, counted = guards.contrast(lists, self.options.tau, "infonce")
        if self.options.symmetric:
            guards.warn_of_lists(scores, "infonce", "symmetric")
            back, answered = _to_queries(lists, self.options.tau)
            ways = counted.to(losses.dtype) + answered.to(losses.dtype)
            losses, counted = (losses + back) / ways.clamp(min=1), counted | answered
        return losses.sum(), counted.sum().to(losses.dtype)


def _to_queries(lists: guards.Lists, tau: float) -> tuple[Tensor, Tensor]:
    """For each query how surprising it is among all queries, to its positive; and whether there is any other."""
    if not lists.use.numel():
        return lists.student.sum(1), lists.use.any(1)
    given, at = lists.positive >= 0, lists.positive.clamp(min=0)
    student, use, label, masked = (part[:, at].T for part in (lists.student, lists.use, lists.label, lists.masked))
    itself = torch.eye(len(at), dtype=torch.bool, device=at.device)
    same = lists.positive[:, None] == lists.positive[None, :]
    use = use & given[:, None] & (itself | ~(same | (label > 0) | masked))
    use = use & (use.sum(1, keepdim=True) > 1)
    return -guards.log_softmax(student, use, tau).diagonal(), use.any(1)
