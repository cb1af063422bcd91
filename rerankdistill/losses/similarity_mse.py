r"""The cosines among the student's vectors are to equal those among the teacher's: relations, not coordinates.

.. math:: \frac{1}{T^2} \sum_{x, y} \left[\cos(S_x, S_y) - \cos(T_x, T_y)\right]^2

The diagonal counts, as published. Student and teacher may differ in dimension. ``dims`` averages the loss over prefixes
of the student's vectors (Matryoshka); the teacher's are always whole. Relations between micro-batches are not seen.

By hand: S = ((1, 0), (1, 0)), T = ((1, 0), (0, 1)): two of four cosines are off by one: 0.5.

The similarity term of Zhang et al. 2024 (Jasper and Stella), arXiv:2412.19048.
"""

from __future__ import annotations

from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import normalize

from rerankdistill.cards import Card, parse
from rerankdistill.contracts import Scores
from rerankdistill.errors import CardError
from rerankdistill.losses import guards
from rerankdistill.types import Scale


class Options(Card):
    dims: tuple[Annotated[int, Field(gt=0)], ...] = ()
    """Lengths of the prefixes; empty: the whole vector."""


class Kind:
    """See the module."""

    needs: frozenset[str] = frozenset({"vectors"})
    eats: frozenset[Scale] = frozenset()

    def __init__(self, **options: Any) -> None:
        self.options = parse(Options, options, "loss similarity_mse")

    def __call__(self, scores: Scores) -> tuple[Tensor, Tensor]:
        student, teacher = guards.vectors(scores, "similarity_mse", same_dimension=False)
        dims = self.options.dims or (student.shape[1],)
        if max(dims) > student.shape[1]:
            what = f"dims reach {max(dims)}, the student's vectors have {student.shape[1]}"
            raise CardError(what, where="loss similarity_mse")
        with torch.autocast(student.device.type, enabled=False):  # the product stays in float32 at least
            wanted = _cosines(teacher)
            squares = [(_cosines(student[:, :dim]) - wanted).square().sum() for dim in dims]
        return torch.stack(squares).mean(), student.new_tensor(len(student) ** 2)


def _cosines(vectors: Tensor) -> Tensor:
    unit = normalize(vectors, eps=1e-8)
    return unit @ unit.T
