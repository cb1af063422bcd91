r"""The student's vector of a text is to equal the teacher's, length included.

.. math:: \frac{1}{T d} \sum_x \lVert S_x - T_x \rVert^2

By hand: S = (1, 0), T = (0, 0): (1 + 0) / 2 = 0.5.

Reimers, Gurevych 2020, arXiv:2004.09813.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from rerankdistill.cards import Card, parse
from rerankdistill.contracts import Scores
from rerankdistill.losses import guards
from rerankdistill.types import Scale


class Options(Card):
    pass


class Kind:
    """See the module. Raises DataError where student and teacher differ in dimension."""

    needs: frozenset[str] = frozenset({"vectors"})
    eats: frozenset[Scale] = frozenset()
    same_dimension = True

    def __init__(self, **options: Any) -> None:
        self.options = parse(Options, options, "loss embed_mse")

    def __call__(self, scores: Scores) -> tuple[Tensor, Tensor]:
        student, teacher = guards.vectors(scores, "embed_mse", same_dimension=True)
        return (student - teacher).square().sum(), student.new_tensor(student.numel())
