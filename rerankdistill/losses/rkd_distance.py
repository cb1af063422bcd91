r"""Relational distillation: texts that are far apart for the teacher are to be so for the student, in proportion.

.. math:: \frac{1}{P} \sum_{x < y} h\left(\frac{\lVert S_x - S_y \rVert}{\mu_S} -
          \frac{\lVert T_x - T_y \rVert}{\mu_T}\right)

mu is the mean distance of the batch, so that neither unit matters; student and teacher may differ in dimension. h is
Huber's: x^2 / 2 up to ``huber``, a straight line beyond it. Relations between micro-batches are not seen.

By hand: three texts on a line, S at 0, 1, 3 and T at 0, 1, 2: distances (1, 3, 2) / 2 and (1, 2, 1) / (4/3), whose
differences are -1/4, 0, 1/4, so (1/32 + 0 + 1/32) / 3 = 0.0208.

Park, Kim, Lu, Cho 2019 (RKD), arXiv:1904.05068.
"""

from __future__ import annotations

from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import huber_loss, pdist

from rerankdistill.cards import Card, parse
from rerankdistill.contracts import Scores
from rerankdistill.losses import guards
from rerankdistill.types import Scale


class Options(Card):
    huber: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0


class Kind:
    """See the module. A single text has no distance and weight zero."""

    needs: frozenset[str] = frozenset({"vectors"})
    eats: frozenset[Scale] = frozenset()

    def __init__(self, **options: Any) -> None:
        self.options = parse(Options, options, "loss rkd_distance")

    def __call__(self, scores: Scores) -> tuple[Tensor, Tensor]:
        student, teacher = guards.vectors(scores, "rkd_distance", same_dimension=False)
        mine, theirs = _distances(student), _distances(teacher)
        total = huber_loss(mine, theirs, reduction="sum", delta=self.options.huber)
        return total, total.new_tensor(len(mine))


def _distances(vectors: Tensor) -> Tensor:
    """``[t (t - 1) / 2]`` over their mean; all 0 where nothing is apart."""
    if len(vectors) < 2:
        return vectors[:0].sum(1)  # pdist's gradient divides by zero there, which ends the process
    found = pdist(vectors)
    mean = found.mean()
    return found / torch.where(mean > 0, mean, 1.0)
