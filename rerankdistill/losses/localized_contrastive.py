r"""Localized contrastive estimation: InfoNCE inside the query's own list, hard negatives alone.

.. math:: -\frac{1}{B} \sum_q \log \mathrm{softmax}(s_q / \tau)_{+}

What cross-encoders are commonly trained with, since they cannot score a batch's other documents for free. A document
that is labelled besides the positive, or masked as a likely false negative, is no negative.

By hand: s = (ln 2, 0, 0), tau = 1, the first is the positive: -ln 2/4 = 0.6931.

Gao, Dai, Callan 2021, arXiv:2101.08751.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from rerankdistill.cards import Card, parse
from rerankdistill.contracts import Scores
from rerankdistill.losses import guards
from rerankdistill.types import Scale


class Options(Card):
    tau: guards.Temperature = 1.0
    """For a cross-encoder's logits; cosines want about 0.05."""


class Kind:
    """See the module. A query without a positive has weight zero."""

    needs: frozenset[str] = frozenset({"student", "positive"})
    eats: frozenset[Scale] = frozenset()

    def __init__(self, **options: Any) -> None:
        self.options = parse(Options, options, "loss localized_contrastive")

    def __call__(self, scores: Scores) -> tuple[Tensor, Tensor]:
        lists = guards.read(scores, "localized_contrastive", self.needs, "own")
        losses, counted = guards.contrast(lists.compact(), self.options.tau, "localized_contrastive")
        return losses.sum(), counted.sum().to(losses.dtype)
