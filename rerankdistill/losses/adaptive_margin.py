r"""Adaptive relevance margins, without a teacher: a positive is ahead of a document by as much as the two are alike.

.. math:: \frac{1}{|P|} \sum_{(q, n) \in P} \left[(s_{q+} - s_{qn}) - \frac{\cos(d_{q+}, d_n) + 1}{2}\right]^2

The student's own similarity of the two documents is the margin, so it must compare documents by cosine. A negative n
is a document of the batch that is nobody's positive, and for q neither labelled nor masked as a likely false negative.
``mode`` decides P: ``in_batch`` (default), every query against every negative of the batch; ``paired``, against those
of its own list. Two forms of the published code, for comparison: ``in_batch_published`` takes the positive's score from
the query in whose list n is, not from q; ``distributed`` holds the margins of that query against q's target.

``detach_target`` (default): the target has no gradient, like any teacher's; else, as in the published code, a student
that is not far enough ahead can also push the two documents apart until the target suits it.

By hand: s = (1, 0), the first the positive, cos = 0: (1 - 0 - 1/2)^2 = 0.25.

Gienapp, Deckers, Potthast, Scells 2025, "Learning effective representations for retrieval using self-distillation with
adaptive relevance margins", ICTIR; arXiv:2407.21515.
"""

from __future__ import annotations

from typing import Any, Literal, cast

import torch
from torch import Tensor

from rerankdistill.cards import Card, parse
from rerankdistill.contracts import Scores
from rerankdistill.errors import DataError
from rerankdistill.losses import guards
from rerankdistill.types import Scale

SLACK = 0.01
"""A cosine of rounded vectors may be so far above 1."""


class Options(Card):
    mode: Literal["in_batch", "paired", "in_batch_published", "distributed"] = "in_batch"
    detach_target: bool = True


class Kind:
    """See the module. A query without a positive has no pair. Raises DataError where similarities are no cosines."""

    needs: frozenset[str] = frozenset({"student", "docs", "positive"})
    eats: frozenset[Scale] = frozenset()

    def __init__(self, **options: Any) -> None:
        self.options = parse(Options, options, "loss adaptive_margin")
        if self.options.mode != "in_batch":
            self.needs = self.needs | {"own"}

    def __call__(self, scores: Scores) -> tuple[Tensor, Tensor]:
        lists, mode = guards.read(scores, "adaptive_margin", self.needs, "batch"), self.options.mode
        if not bool((lists.positive >= 0).any()):
            return (0 * lists.student).sum(), lists.student.new_tensor(0.0)
        pairs, at = _negatives(lists), lists.positive.clamp(min=0)
        targets = self._targets(scores, pairs, at)
        best = lists.student.gather(1, at[:, None])
        if mode == "paired":
            pairs = pairs & _own(scores)
        if mode in ("in_batch", "paired"):
            errors = best - lists.student - targets
        else:
            owner, column = (pairs & _own(scores)).nonzero(as_tuple=True)
            theirs = lists.student[owner, column] if mode == "distributed" else lists.student[:, column]
            errors, pairs = best[owner, 0] - theirs - targets[:, column], pairs[:, column]
        return torch.where(pairs, errors, 0.0).square().sum(), pairs.sum().to(errors.dtype)

    def _targets(self, scores: Scores, pairs: Tensor, at: Tensor) -> Tensor:
        """``[b, m]`` the margins that are wanted; 0 where there is no pair."""
        docs = guards.widen(cast(Tensor, scores.docs))
        if docs.shape != (pairs.shape[1], pairs.shape[1]):
            what = f"docs must be [{pairs.shape[1]}, {pairs.shape[1]}], got {tuple(docs.shape)}"
            raise DataError(what, where="loss adaptive_margin")
        alike = docs[at].detach() if self.options.detach_target else docs[at]
        guards.check_student(alike, pairs, "adaptive_margin")
        alike = torch.where(pairs, alike, 0.0)
        if bool((alike.detach().abs() > 1 + SLACK).any()):
            fix = "take a student with similarity = 'cosine'"
            raise DataError("the similarity of two documents is no cosine", where="loss adaptive_margin", fix=fix)
        return (alike + 1) / 2


def _negatives(lists: guards.Lists) -> Tensor:
    """``[b, m]`` the documents that a query's positive is held against."""
    free = torch.ones(lists.use.shape[1], dtype=torch.bool, device=lists.use.device)
    free[lists.positive[lists.positive >= 0]] = False
    return lists.use & free & ~((lists.label > 0) | lists.masked) & (lists.positive >= 0)[:, None]


def _own(scores: Scores) -> Tensor:
    return torch.ones_like(scores.student, dtype=torch.bool) if scores.own is None else scores.own.bool()
