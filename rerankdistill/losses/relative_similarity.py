r"""Of two pairs of texts, the pair that is more alike for the teacher is to be more alike for the student, by a margin.

.. math:: \frac{1}{|Q|} \sum_{(a, b) \in Q} \max\left(0, S_b - S_a + m\right), \quad
          Q = \{(a, b) : T_a > T_b\}

S and T are cosines, a and b each one of the P = t (t - 1) / 2 pairs of t texts; pairs that the teacher finds equally
alike say nothing of each other. Only the teacher's order of pairs counts. ``dims`` averages the loss over prefixes of
the student's vectors (Matryoshka); the teacher's are always whole. Relations between micro-batches are not seen.

The P^2 / 2 comparisons are never formed: sorting tells how many of them each pair loses as a and as b, which is its
gradient, and the value follows from that. It takes O(P log^2 P) time and O(P) memory for each prefix.

By hand: cosines T = (0.9, 0.1, 0), S = (0.5, 0.6, 0), m = 0.015: 0.6 - 0.5 + m over three comparisons: 0.0383.

The relative term of Zhang et al. 2024 (Jasper and Stella), arXiv:2412.19048: "10 embed_cosine + 200 similarity_mse + 20
relative_similarity".
"""

from __future__ import annotations

from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import pad

from rerankdistill.cards import Card, parse
from rerankdistill.contracts import Scores
from rerankdistill.losses import _vectors, guards
from rerankdistill.types import Scale


class Options(Card):
    margin: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.015
    dims: _vectors.Dims = ()
    """Lengths of the prefixes; empty: the whole vector."""


class Kind:
    """See the module. Fewer than three texts have no two pairs and weight zero."""

    needs: frozenset[str] = frozenset({"vectors"})
    eats: frozenset[Scale] = frozenset()

    def __init__(self, **options: Any) -> None:
        self.options = parse(Options, options, "loss relative_similarity")

    def __call__(self, scores: Scores) -> tuple[Tensor, Tensor]:
        student, teacher = guards.vectors(scores, "relative_similarity", same_dimension=False)
        cut = _vectors.prefixes(student, self.options.dims, "relative_similarity")
        one, other = torch.triu_indices(len(student), len(student), 1, device=student.device)
        with torch.autocast(student.device.type, enabled=False):  # the product stays in float32 at least
            wanted = _vectors.cosines(teacher)[one, other]
            order = wanted.argsort(descending=True, stable=True)
            ties = pad(wanted[order].diff() != 0, (1, 0)).cumsum(0)[: len(order)]
            found = [_hinge(_vectors.cosines(part)[one, other][order], ties, self.options.margin) for part in cut]
        sizes = ties.bincount().double()
        ordered = (len(order) ** 2 - sizes.square().sum()) / 2
        return torch.stack(found).mean(), ordered.to(student.dtype)


def _hinge(student: Tensor, ties: Tensor, margin: float) -> Tensor:
    """The sum over all i before j, not tied, of max(0, student_j - student_i + margin).

    Args:
        student: ``[p]`` in the teacher's order, what it puts highest first.
        ties: ``[p]`` a number that grows along with it and is the same where the teacher is undecided.
    """
    slopes, active = _slopes(student.detach(), ties, margin)
    wide = student.double()  # the counts are exact, and their product with the scores is to be so too
    return ((slopes * wide).sum() + margin * active).to(student.dtype)


def _slopes(student: Tensor, ties: Tensor, margin: float) -> tuple[Tensor, Tensor]:
    """``[p]`` comparisons that each loses as j, less those as i; and how many are lost in all. Merges as merge sort
    does: blocks of 1, 2, 4, … beside each other, the later one held against the sorted former one."""
    count = len(student)
    slopes, active = torch.zeros_like(student, dtype=torch.float64), student.new_zeros((), dtype=torch.float64)
    size = 1
    while size < count:
        length = -(-count // (2 * size)) * 2 * size
        values = pad(student, (0, length - count), value=-torch.inf).view(-1, 2, size)  # loses nothing, whichever side
        group = pad(ties, (0, length - count), value=count).view(-1, 2, size)
        across = (group[:, 0, -1:] == group[:, 1, :1]) & (group[:, 1, :1] < count)
        torn = across[:, None] & (group == group[:, 1:, :1])  # [n, 2, size]: tied with some of the other block
        first, second = _lost(values[:, 0], torch.where(torn[:, 1], -torch.inf, values[:, 1]), margin)
        if bool(across.any()):
            untied = torch.where(torn[:, 0], torch.inf, values[:, 0])
            more = _lost(untied, torch.where(torn[:, 1], values[:, 1], -torch.inf), margin)
            first, second = first + more[0], second + more[1]
        slopes += torch.stack([-first, second], 1).view(-1)[:count]
        active += second.sum()
        size *= 2
    return slopes, active


def _lost(former: Tensor, latter: Tensor, margin: float) -> tuple[Tensor, Tensor]:
    """``[n, size]`` twice: for each of ``former`` how many of ``latter`` are above it less the margin, and for each of
    ``latter`` how many of ``former`` it is above."""
    ranked, places = former.sort(dim=1)
    below = torch.searchsorted(ranked, (latter + margin).contiguous())
    reach = torch.zeros(len(below), former.shape[1] + 1, dtype=below.dtype, device=below.device)
    reach.scatter_add_(1, below, torch.ones_like(below))
    above = below.shape[1] - reach.cumsum(1)[:, :-1]  # the k-th smallest is below all that reach beyond k
    return torch.empty_like(above).scatter_(1, places, above), below
