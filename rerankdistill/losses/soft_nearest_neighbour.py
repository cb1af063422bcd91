r"""InfoNCE for queries with several labelled documents: their mass together against everything.

.. math:: -\frac{1}{B} \sum_q \log \frac{\sum_{d \in D^+_q} e^{s_{qd} / \tau}}{\sum_{d \in D_q} e^{s_{qd} / \tau}}

D+ holds the documents of q's list with a label above zero, and its given positive; all grades count alike. D_q holds
every valid document of the batch but those masked as likely false negatives. It is enough that one positive of several
is near: the others are not pulled apart from it, and not pushed away either.

By hand: s = (ln 2, 0, 0), tau = 1, the first two labelled: -ln 3/4 = 0.2877.

Salakhutdinov, Hinton 2007, "Learning a nonlinear embedding by preserving class neighbourhood structure", AISTATS;
Frosst, Papernot, Hinton 2019, arXiv:1902.01889. For positives that a language model wrote: see ``summed_positives``.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rerankdistill.cards import Card, parse
from rerankdistill.contracts import Scores
from rerankdistill.losses import guards
from rerankdistill.types import Scale


class Options(Card):
    tau: guards.Temperature = 0.05
    """For cosines; a cross-encoder's logits want 1."""
    over: guards.Over = "batch"


class Kind:
    """See the module. A query without a labelled document, or without any other, has weight zero."""

    needs: frozenset[str] = frozenset({"student", "label"})
    eats: frozenset[Scale] = frozenset()

    def __init__(self, **options: Any) -> None:
        self.options = parse(Options, options, "loss soft_nearest_neighbour")

    def __call__(self, scores: Scores) -> tuple[Tensor, Tensor]:
        lists = guards.read(scores, "soft_nearest_neighbour", self.needs, self.options.over)
        positive = lists.use & ((lists.label > 0) | lists.is_positive())
        rivals = lists.use & ~positive & ~lists.masked
        counted = positive.any(1) & rivals.any(1)
        logs = guards.log_softmax(lists.student, positive | rivals, self.options.tau)
        logs = torch.where(positive, logs, -torch.inf).masked_fill(~counted[:, None], 0.0)
        return -torch.where(counted, logs.logsumexp(1), 0.0).sum(), counted.sum().to(logs.dtype)
