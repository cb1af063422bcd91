r"""The cosines among the student's vectors are to equal those among the teacher's: relations, not coordinates.

.. math:: \frac{1}{T^2} \sum_{x, y} \left[\cos(S_x, S_y) - \cos(T_x, T_y)\right]^2

The diagonal counts, as published. Student and teacher may differ in dimension. ``dims`` averages the loss over prefixes
of the student's vectors (Matryoshka); the teacher's are always whole. Relations between micro-batches are not seen.

By hand: S = ((1, 0), (1, 0)), T = ((1, 0), (0, 1)): two of four cosines are off by one: 0.5.

The similarity term of Zhang et al. 2024 (Jasper and Stella), arXiv:2412.19048.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rerankdistill.cards import Card, parse
from rerankdistill.contracts import Scores
from rerankdistill.losses import _vectors, guards
from rerankdistill.types import Scale


class Options(Card):
    dims: _vectors.Dims = ()
    """Lengths of the prefixes; empty: the whole vector."""


class Kind:
    """See the module."""

    needs: frozenset[str] = frozenset({"vectors"})
    eats: frozenset[Scale] = frozenset()

    def __init__(self, **options: Any) -> None:
        self.options = parse(Options, options, "loss similarity_mse")

    def __call__(self, scores: Scores) -> tuple[Tensor, Tensor]:
        student, teacher = guards.vectors(scores, "similarity_mse", same_dimension=False)
        cut = _vectors.prefixes(student, self.options.dims, "similarity_mse")
        with torch.autocast(student.device.type, enabled=False):  # the product stays in float32 at least
            wanted = _vectors.cosines(teacher)
            squares = [(_vectors.cosines(part) - wanted).square().sum() for part in cut]
        return torch.stack(squares).mean(), student.new_tensor(len(student) ** 2)
