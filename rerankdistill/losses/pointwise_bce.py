r"""One document at a time: the student's score, as log-odds of relevance, against the teacher's.

.. math:: \frac{1}{N} \sum_i \log\left(1 + e^{s_i}\right) - y_i s_i

A cosine is no log-odds: ``scale`` and ``bias`` make ``scale`` * s + ``bias`` of it. ``target`` decides y: ``logit``
(default), sigmoid(t / ``tau_teacher``); ``probability``, the teacher's score as it is; ``label``, the grade over
``highest``, at most 1. The mean is over the documents of the batch; a list may hold just one. The student learns the
teacher's zero as well, not just its order.

By hand: s = 0, t = ln 3: y = 3/4, ln 2 - 3/4 * 0 = 0.6931; s = ln 3: ln 4 - 3/4 ln 3 = 0.5623, the entropy of y.

Cross-entropy with soft targets. Among the losses compared for cross-encoders 2026, arXiv:2603.03010.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import logsigmoid

from rerankdistill.cards import Card, parse
from rerankdistill.contracts import Scores
from rerankdistill.errors import DataError
from rerankdistill.losses import guards
from rerankdistill.types import Scale

EATS = {"logit": {Scale.LOGIT, Scale.ZSCORE}, "probability": {Scale.PROBABILITY}, "label": set()}
"""A sigmoid of a probability would lie above 1/2 whatever it says; of a BM25 score near 1."""


class Options(Card):
    target: Literal["logit", "probability", "label"] = "logit"
    tau_teacher: guards.Temperature = 1.0
    """Divides the teacher's scores, for ``logit`` alone; higher is less sure."""
    highest: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    """The grade that counts as certain, for ``label`` alone."""
    scale: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    """Multiplies the student's scores; one that scores by cosine wants about 20."""
    bias: Annotated[float, Field(allow_inf_nan=False)] = 0.0
    """Is added after that: -10 puts even odds at a cosine of 1/2."""
    over: guards.Over = "own"


class Kind:
    """See the module. Raises DataError for a probability outside of 0 to 1."""

    needs: frozenset[str] = frozenset({"student", "teacher"})
    eats: frozenset[Scale]

    def __init__(self, **options: Any) -> None:
        self.options = parse(Options, options, "loss pointwise_bce")
        self.eats = frozenset(EATS[self.options.target])
        if self.options.target == "label":
            self.needs = frozenset({"student", "label"})

    def __call__(self, scores: Scores) -> tuple[Tensor, Tensor]:
        lists = guards.read(scores, "pointwise_bce", self.needs, self.options.over, alone=True)
        odds = self.options.scale * lists.student + self.options.bias
        losses = -logsigmoid(-odds) - self._target(lists) * odds  # softplus rounds above 20
        return torch.where(lists.use, losses, 0.0).sum(), lists.use.sum().to(losses.dtype)

    def _target(self, lists: guards.Lists) -> Tensor:
        if self.options.target == "label":
            return (lists.label / self.options.highest).clamp(max=1)
        if self.options.target == "logit":
            return (lists.teacher / self.options.tau_teacher).sigmoid()
        if bool(((lists.teacher < 0) | (lists.teacher > 1)).any()):
            fix = "for log-odds set target = 'logit'"
            raise DataError("a teacher score is no probability", where="loss pointwise_bce", fix=fix)
        return lists.teacher
