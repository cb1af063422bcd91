r"""InRanker: both answers to "is this relevant?", the student's two logits against the teacher's.

.. math:: \frac{1}{2 N} \sum_i (z^{no}_i - \tilde{t}^{no}_i)^2 + (z^{yes}_i - \tilde{t}^{yes}_i)^2,
          \quad \tilde{t} = t - \frac{t^{no} + t^{yes}}{2}

For a student that says yes and no in words, of a teacher that does so too. A teacher's two logits may lie anywhere,
their difference alone says how relevant a document is: ``centre`` (default) puts their middle at zero, document by
document. Documents of which the teacher said nothing count nothing.

By hand: z = (0, 0), t = (1, 5): t about its middle is (-2, 2), so (4 + 4) / 2 = 4; without ``centre`` 26 / 2 = 13.

Laitz et al. 2024 (InRanker), arXiv:2401.06910.
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
    centre: bool = True
    """Take the middle of the teacher's two logits away from both."""


class Kind:
    """See the module. A list may hold just one document."""

    needs: frozenset[str] = frozenset({"logits"})
    eats: frozenset[Scale] = frozenset()

    def __init__(self, **options: Any) -> None:
        self.options = parse(Options, options, "loss two_logit_mse")

    def __call__(self, scores: Scores) -> tuple[Tensor, Tensor]:
        lists = guards.read(scores, "two_logit_mse", self.needs, "batch", alone=True)
        student, teacher, use = guards.logits(scores, lists.use, "two_logit_mse")
        if self.options.centre:
            teacher = teacher - teacher.mean(2, keepdim=True)
        squares = torch.where(use[:, :, None], student - teacher, 0.0).square()
        return squares.sum(), 2 * use.sum().to(squares.dtype)
