r"""The student's vector of a text is to point where the teacher's points.

.. math:: \frac{1}{T} \sum_x \left[1 - \cos(S_x, T_x)\right]

No query, label or candidate is needed: any texts will do. Length is free, direction is not.

By hand: S = (1, 0), T = (1, 1): 1 - 1/sqrt(2) = 0.2929.

The cosine term of Zhang et al. 2024 (Jasper and Stella), arXiv:2412.19048.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn.functional import normalize

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
        self.options = parse(Options, options, "loss embed_cosine")

    def __call__(self, scores: Scores) -> tuple[Tensor, Tensor]:
        student, teacher = guards.vectors(scores, "embed_cosine", same_dimension=True)
        cosines = (normalize(student, eps=1e-8) * normalize(teacher, eps=1e-8)).sum(1)
        return (1 - cosines).sum(), cosines.new_tensor(len(cosines))
