r"""InfoNCE over the documents of a batch: labels only, no teacher. The control of every distillation.

.. math:: -\frac{1}{B} \sum_q \log \frac{e^{s_{q+} / \tau}}{\sum_{d \in D_q} e^{s_{qd} / \tau}}

D_q holds every valid document of the batch: the query's own and the other queries'. A document that is labelled for
the query besides its positive, or masked as a likely false negative, is no negative and leaves the denominator.

By hand: s = (ln 3, 0), tau = 1, the first is the positive: -ln 3/4 = 0.2877.

van den Oord, Li, Vinyals 2018, arXiv:1807.03748. In-batch for passages: Karpukhin et al. 2020, arXiv:2004.04906.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from rerankdistill.cards import Card, parse
from rerankdistill.contracts import Scores
from rerankdistill.losses import guards
from rerankdistill.types import Scale


class Options(Card):
    tau: guards.Temperature = 0.05
    """For cosines; a cross-encoder's logits want 1."""


class Kind:
    """See the module. A query without a positive has weight zero."""

    needs: frozenset[str] = frozenset({"student", "positive"})
    eats: frozenset[Scale] = frozenset()

    def __init__(self, **options: Any) -> None:
        self.options = parse(Options, options, "loss infonce")

    def __call__(self, scores: Scores) -> tuple[Tensor, Tensor]:
        lists = guards.read(scores, "infonce", self.needs, "batch")
        return guards.contrast(lists, self.options.tau, "infonce")
