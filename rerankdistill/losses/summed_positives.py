r"""InfoNCE for queries with several labelled documents: their scores added up, like those of the other queries.

.. math:: -\frac{1}{B} \sum_q \log \frac{e^{S_{qq} / \tau}}{\sum_{q'} e^{S_{qq'} / \tau} + \sum_n e^{s_{qn} / \tau}},
          \quad S_{qq'} = \sum_{d \in D^+_{q'}} s_{qd}

D+ holds the documents of a query's list with a label above zero, and its given positive; the negatives n are the
documents of the batch that are nobody's. What is labelled for q, or masked for it as a likely false negative, counts
neither as a negative nor in another query's sum. ``pool`` = ``mean`` divides each sum by how many it adds, for lists
that differ in how many positives they have: a sum of three cosines stands far above a single one.

By hand: s = (0.5, 0.5, 0), tau = 1, the first two labelled: ln(1 + e^-1) = 0.3133; ``mean`` ln(1 + e^-0.5) = 0.4741.

The first stage of Kim, Baek 2025 (Syntriever), arXiv:2502.03824, with a tau of 0.05, as their code means it: what it
runs takes a query's further positives for negatives.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from rerankdistill.cards import Card, parse
from rerankdistill.contracts import Scores
from rerankdistill.losses import guards
from rerankdistill.types import Scale


class Options(Card):
    tau: guards.Temperature = 0.05
    """For cosines; a cross-encoder's logits want 1."""
    pool: Literal["sum", "mean"] = "sum"
    over: guards.Over = "batch"
    """``own``: against the negatives of the query's own list alone."""


class Kind:
    """See the module. A query without a labelled document, or without any other, has weight zero."""

    needs: frozenset[str] = frozenset({"student", "label"})
    eats: frozenset[Scale] = frozenset()

    def __init__(self, **options: Any) -> None:
        self.options = parse(Options, options, "loss summed_positives")

    def __call__(self, scores: Scores) -> tuple[Tensor, Tensor]:
        lists = guards.read(scores, "summed_positives", self.needs, self.options.over)
        positive = lists.use & ((lists.label > 0) | lists.is_positive())
        negative = lists.use & ~positive & ~lists.masked
        sums, there = self._slots(lists.student, positive, negative)
        if self.options.over == "batch":
            guards.warn_of_lists(scores, "summed_positives", "its sum over positives")
            negative = negative & ~positive.any(0)
        else:
            there = there & torch.eye(len(there), dtype=torch.bool, device=there.device)
        counted = positive.any(1) & (there.sum(1) + negative.sum(1) > 1)
        use = torch.cat([there, negative], 1) & counted[:, None]
        logs = guards.log_softmax(torch.cat([sums, lists.student], 1), use, self.options.tau)
        return -logs.diagonal().sum(), counted.sum().to(logs.dtype)

    def _slots(self, student: Tensor, positive: Tensor, negative: Tensor) -> tuple[Tensor, Tensor]:
        """``[b, b]`` what each query makes of each query's positives together, and whether there are any."""
        itself = torch.eye(len(student), dtype=torch.bool, device=student.device)
        with torch.autocast(student.device.type, enabled=False):  # the product stays in float32 at least
            theirs = positive.to(student.dtype).T
            sums = torch.where(negative, student, 0.0) @ theirs
            counts = negative.to(student.dtype) @ theirs
        own = torch.where(positive, student, 0.0).sum(1)
        sums = torch.where(itself, own[:, None], sums)
        counts = torch.where(itself, positive.sum(1).to(counts.dtype)[:, None], counts)
        return (sums / counts.clamp(min=1) if self.options.pool == "mean" else sums), counts > 0
