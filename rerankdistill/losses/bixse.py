r"""BiXSE: every document of the batch against its graded label, one at a time; unlabelled ones are irrelevant.

.. math:: \frac{1}{B} \sum_q \sum_{d \in D_q} \log\left(1 + e^{z_{qd}}\right) - y_{qd} z_{qd}, \quad
          z = c\, s + b

y is the grade over ``highest``, at most 1: a label, or (``grades = "teacher"``) what a teacher said that grades, as a
language model does from 0 to 3. It is 0 for a document without one: the other queries' documents, the hard
negatives. A document that is masked as a likely false negative is no negative and is left out. ``reduction``: added up
over documents and averaged over queries (``mean_query``), or averaged over all cells (``mean``). ``scale`` (c) and
``bias`` (b) are constants that turn a cosine into log-odds; b is low since most documents of a batch are irrelevant.

By hand: s = (0.5, 0.5), y = (1, 0), c = 10, b = -5: z = (0, 0), so ln 2 + ln 2 = 1.3863.

Tsirigotis, Adlakha, Monteiro, Courville, Taslakian 2025, arXiv:2508.06781; reduction, scale and bias are not from it.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import logsigmoid

from rerankdistill.cards import Card, parse
from rerankdistill.contracts import Scores
from rerankdistill.losses import guards
from rerankdistill.types import Scale


class Options(Card):
    scale: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 10.0
    """For cosines; a cross-encoder's logits want 1, and a bias of 0."""
    bias: Annotated[float, Field(allow_inf_nan=False)] = -5.0
    highest: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    """The grade that counts as certain."""
    grades: Literal["label", "teacher"] = "label"
    """Where the grades come from; a teacher's score below zero counts as zero."""
    reduction: Literal["mean_query", "mean"] = "mean_query"
    over: guards.Over = "batch"


class Kind:
    """See the module."""

    needs: frozenset[str] = frozenset({"student", "label"})
    eats: frozenset[Scale] = frozenset()

    def __init__(self, **options: Any) -> None:
        self.options = parse(Options, options, "loss bixse")
        if self.options.grades == "teacher":
            self.needs = frozenset({"student", "teacher"})
            self.eats = frozenset({Scale.GRADE, Scale.PROBABILITY})

    def __call__(self, scores: Scores) -> tuple[Tensor, Tensor]:
        guards.require(scores, "bixse", self.needs)
        # What the teacher has not graded counts as well, as irrelevant: the batch is not cut to its cells.
        lists = guards.read(scores, "bixse", self.needs - {"teacher"}, self.options.over, alone=True)
        grade = self._graded(scores) if self.options.grades == "teacher" else lists.label
        use = lists.use & ((grade > 0) | ~lists.masked)
        target = (grade / self.options.highest).clamp(0, 1)
        logits = self.options.scale * lists.student + self.options.bias
        losses = torch.where(use, -logsigmoid(-logits) - target * logits, 0.0)  # softplus rounds above 20
        counted = use.any(1) if self.options.reduction == "mean_query" else use
        return losses.sum(), counted.sum().to(losses.dtype)

    def _graded(self, scores: Scores) -> Tensor:
        """The teacher's grades, 0 where it gave none. Raises DataError for one that is not finite."""
        every = guards.read(scores, "bixse", frozenset({"teacher"}), self.options.over, alone=True)
        return every.teacher.clamp(min=0)
