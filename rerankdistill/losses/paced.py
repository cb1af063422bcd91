r"""Queries that a student is at the edge of count most: neither those it has solved nor those beyond its reach.

.. math:: w_q = p_q^a\, (1 - p_q)^b

p is the student's pairwise accuracy on the query's list: the share of the pairs, of which the teacher puts one above
the other, that the student orders as the teacher does, a tie being half right. No gradient goes through it. Each
query's own (sum, weight) is multiplied by w, so that what is left of a batch is averaged over what is left of it. To
that end the loss sees one query at a time; what it otherwise takes over the queries of a batch, it takes over that one.

By hand: p = 3/4, a = b = 1: 3/16; p = 0 and p = 1 count nothing.

Xu, Sang, Zhou, He, Wang 2026 (PACED), arXiv:2603.11178, whose p is the rate at which a student solves a problem.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rerankdistill.contracts import Layers, Logits, Loss, Preferences, Scores
from rerankdistill.errors import CardError
from rerankdistill.losses import _pairs, guards
from rerankdistill.losses.combine import Pace
from rerankdistill.types import Scale

FIELDS = ("student", "teacher", "valid", "scored", "own", "label", "positive", "masked")
"""What a batch has for each query."""


class Paced:
    """A loss that weighs queries so. A list that the teacher does not order counts nothing."""

    needs: frozenset[str]
    eats: frozenset[Scale]

    def __init__(self, loss: Loss, pace: Pace) -> None:
        if "vectors" in loss.needs:
            what = "a loss on vectors sees no queries that could be weighed"
            raise CardError(what, where="paced", fix="leave paced out, or take a loss on lists")
        self.loss, self.pace = loss, pace
        self.options: Any = getattr(loss, "options", None)
        self.needs = loss.needs | {"student", "teacher"}
        self.eats = loss.eats or guards.ORDERS

    def __call__(self, scores: Scores) -> tuple[Tensor, Tensor]:
        weights = weights_of(scores, self.pace)
        total = guards.widen(scores.student)[:0].sum()
        weight = total.detach()
        for row in weights.nonzero()[:, 0].tolist():
            own, size = self.loss(_query(scores, slice(row, row + 1)))
            total, weight = total + weights[row] * own, weight + weights[row] * size
        return total, weight


def weights_of(scores: Scores, pace: Pace) -> Tensor:
    """``[b]`` what each query counts."""
    lists = guards.read(scores, "paced", frozenset({"student", "teacher"}), "own").compact()
    student = lists.student.detach()
    pairs = _pairs.above(lists.teacher, lists.use)
    gaps = _pairs.gaps(student, pairs)
    right = ((gaps > 0).sum((1, 2)) + (pairs & (gaps == 0)).sum((1, 2)) / 2).to(student.dtype)
    counts = pairs.sum((1, 2))
    share = right / counts.clamp(min=1)
    return torch.where(counts > 0, share**pace.a * (1 - share) ** pace.b, 0.0)


def _query(scores: Scores, rows: slice) -> Scores:
    """A batch of some of the queries; columns, and what is known of documents, stay."""
    cells = {name: value[rows] for name in FIELDS if (value := getattr(scores, name)) is not None}
    made = Scores(**cells, docs=scores.docs)
    if scores.layers is not None:
        made.layers = Layers(scores.layers.student[:, rows], scores.layers.teacher[:, rows])
    if scores.logits is not None:
        made.logits = Logits(scores.logits.student[rows], scores.logits.teacher[rows])
    if (said := scores.preferences) is not None:
        kept = (said.row >= rows.start) & (said.row < rows.stop)
        parts = (said.row - rows.start, said.first, said.second, said.probability)
        made.preferences = Preferences(*(part[kept] for part in parts))
    return made
