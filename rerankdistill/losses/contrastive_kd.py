r"""InfoNCE between vectors: of all the teacher's, the student's of a text is to be nearest to that of the same text.

.. math:: -\frac{1}{T} \sum_x \log \frac{e^{\cos(S_x, T_x) / \tau}}{\sum_{y} e^{\cos(S_x, T_y) / \tau}}

y are the texts of the batch and, where a queue is kept, those of batches before it: many rivals at no more cost than
their vectors. No query, label or candidate is needed. A text that comes twice is no rival of itself.

By hand: S = T = ((1, 0), (0, 1)), tau = 1: -ln e/(e + 1) = 0.3133; with a queue of ((-1, 0)) the first text's
denominator is e + 1 + e^-1 and the second's e + 1 + 1: (0.4076 + 0.5514) / 2 = 0.4795.

Gao et al. 2021 (DistilCSE), arXiv:2112.05638, whose temperature is learnt; here it is fixed.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rerankdistill.cards import Card, parse
from rerankdistill.contracts import Scores
from rerankdistill.losses import _vectors, guards
from rerankdistill.types import Scale

SAME = 1 - 1e-6
"""The teacher's vectors of one text, up to rounding."""


class Options(Card):
    tau: guards.Temperature = 0.05


class Kind:
    """See the module. Raises DataError where student and teacher differ in dimension."""

    needs: frozenset[str] = frozenset({"vectors"})
    eats: frozenset[Scale] = frozenset()
    same_dimension = True

    def __init__(self, **options: Any) -> None:
        self.options = parse(Options, options, "loss contrastive_kd")

    def __call__(self, scores: Scores) -> tuple[Tensor, Tensor]:
        student, teacher = guards.vectors(scores, "contrastive_kd", same_dimension=True)
        keys = torch.cat([teacher, guards.queue(scores, teacher, "contrastive_kd")])
        with torch.autocast(student.device.type, enabled=False):  # the product stays in float32 at least
            alike = _vectors.cosines(student, keys)
            again = _vectors.cosines(teacher, keys) > SAME
        itself = torch.eye(len(teacher), len(keys), dtype=torch.bool, device=keys.device)
        use = guards.drop_single(itself | ~again, "contrastive_kd")
        logs = guards.log_softmax(alike, use, self.options.tau)
        return -torch.where(itself & use, logs, 0.0).sum(), use.any(1).sum().to(logs.dtype)
