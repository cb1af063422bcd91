r"""Divergence to a target on the way from the student to its teacher, for a teacher that is far ahead.

.. math:: \frac{1}{B} \sum_q \mathrm{KL}\left(\mathrm{softmax}((1 - \lambda)\, \bar{s} + \lambda t) \,\|\,
          \mathrm{softmax}(s)\right), \quad \bar{s} = s \text{ without gradient}

``share`` is lambda, the teacher's part of the target: 1 is ``kl_div``, 0 would teach nothing. As published it grows
during the training: ``share = { from = 0.2, to = 1.0 }``. The two temperatures bring student and teacher to one unit
before they are mixed.

By hand: s = (0, 0), t = (2 ln 3, 0), lambda = 1/2: the target is (3/4, 1/4), so 3/4 ln 3/2 + 1/4 ln 1/2 = 0.1308.

Shing, Misaki, Bao, Yokoi, Akiba 2025, arXiv:2501.16937.
"""

from __future__ import annotations

from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from rerankdistill.cards import parse
from rerankdistill.contracts import Scores
from rerankdistill.losses import guards
from rerankdistill.types import Scale


class Options(guards.Tempered):
    share: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of the teacher's scores in the target; the rest are the student's own."""


class Kind:
    """See the module."""

    needs: frozenset[str] = frozenset({"student", "teacher"})
    eats: frozenset[Scale] = guards.VALUES

    def __init__(self, **options: Any) -> None:
        self.options = parse(Options, options, "loss taid")

    def __call__(self, scores: Scores) -> tuple[Tensor, Tensor]:
        options = self.options
        lists = guards.read(scores, "taid", self.needs, options.over).compact()
        own = lists.student.detach() / options.tau_student
        between = own + options.share * (lists.teacher / options.tau_teacher - own)
        target = guards.log_softmax(between, lists.use, 1.0)
        student = guards.log_softmax(lists.student, lists.use, options.tau_student)
        return torch.where(lists.use, target.exp() * (target - student), 0.0).sum(), lists.count()
