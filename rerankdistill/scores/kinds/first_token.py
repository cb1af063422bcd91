"""A language model's rating of the identifiers at the first position of its answer, as a teacher of ranks or logits.

The windows are those of ``listwise``, but nothing is written: the model says with one forward pass how likely each
identifier is to be named first, and that is the order. Gangi Reddy et al., *FIRST: Faster Improved Listwise Reranking
with Single Token Decoding*, arXiv 2406.15657.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, Self

import numpy as np
from pydantic import model_validator

from rerankdistill.errors import DataError
from rerankdistill.scores.card import ScorerCard
from rerankdistill.scores.llm.model import Ask, LanguageModel
from rerankdistill.scores.llm.permutation import Window
from rerankdistill.scores.llm.windows import Windowed, WindowOptions
from rerankdistill.types import FloatArray, Group, Scale

DIGITS = 9
"""Numbers that surely begin with different tokens."""


class FirstTokenOptions(WindowOptions):
    """How the order is read; see also :class:`~rerankdistill.scores.llm.windows.WindowOptions`.

    Attributes:
        identifiers: ``letters`` (a window of at most 26), or ``numbers`` (of at most 9, for many models read ``12`` as
            two tokens, of which the first is also ``1``).
        answer: what stands before the identifier. A model that was trained to write ``[B] > [A]`` wants ``[``.
        signal: ``rank``: an order. ``logit``: the identifiers' raw logits (behind an endpoint, log-probabilities),
            which can be compared within one window only; so the list must fit into it.
    """

    identifiers: Literal["numbers", "letters"] = "letters"
    answer: str = "["
    signal: Literal["rank", "logit"] = "rank"

    @model_validator(mode="after")
    def _one_token(self) -> Self:
        if not self.letters and self.window > DIGITS:
            raise ValueError(f"window: at most {DIGITS} numbers begin differently; choose identifiers = 'letters'")
        if self.signal == "logit" and self.passes > 1:
            raise ValueError("passes: with signal = 'logit' there is one window, read once")
        return self


class Kind(Windowed[FirstTokenOptions]):
    """Orders by the logits of identifiers; an identifier that the model does not rate (an endpoint may leave it out)
    stays behind the others in its present order, and its window is counted in ``usage["malformed"]``.

    ``scale`` is ``rank`` (a score is ``n - rank``) or ``logit``, by ``options.signal``.
    """

    Options = FirstTokenOptions
    mark = "first_token"

    def __init__(self, model: LanguageModel, card: ScorerCard, options: FirstTokenOptions) -> None:
        super().__init__(model, card, options)
        self.scale = Scale.RANK if options.signal == "rank" else Scale.LOGIT
        self.partial = self.scale is Scale.LOGIT and not model.exact

    @classmethod
    def asking(cls, model: LanguageModel, card: ScorerCard, options: FirstTokenOptions) -> Self:
        made = cls(model, card, options)
        card.require_scale(made.scale)
        return made

    def judge(self, groups: Sequence[Group]) -> list[FloatArray]:
        """For each group ``[n]`` scores: ``n - rank``, or raw logits.

        Raises:
            DataError: with ``signal = "logit"``, a list longer than a window.
        """
        return super().judge(groups) if self.scale is Scale.RANK else self._logits(groups)

    def arrange(self, count: int, asks: Sequence[Ask]) -> Sequence[list[int]]:
        return [_order(row) for row in self._rate(count, asks)]

    def _rate(self, count: int, asks: Sequence[Ask]) -> Sequence[FloatArray]:
        rows = self.model.choose(asks, self.names(count))
        self._counts["malformed"] += int(np.isnan(rows).any(1).sum())
        self._counts["unread"] += int(((~np.isnan(rows)).sum(1) < 2).sum())
        return list(rows)

    def _logits(self, groups: Sequence[Group]) -> list[FloatArray]:
        size = self.options.window
        for group in groups:
            if len(group.doc_ids) > size:
                what = f"a list of {len(group.doc_ids)} documents, but logits can be compared in one window of {size}"
                fix = "score fewer documents a query, set a larger options.window, or options.signal = 'rank'"
                raise DataError(what, where=f"query {group.query.query_id!r}", fix=fix)
        scores = [np.zeros(len(group.doc_ids), np.float32) for group in groups]
        asked = [Window(row, tuple(self.start(group))) for row, group in enumerate(groups)]
        asked = [window for window in asked if len(window.places) > 1]  # a list of one is asked nothing: its score is 0
        shown = [self.shown(group) for group in groups]
        for window, rated in zip(asked, self.ask(groups, shown, asked, self._rate), strict=True):
            scores[window.row][list(window.places)] = rated
        return scores


def _order(row: FloatArray) -> list[int]:
    """Places by falling logit; equal ones and those without stay in their order."""
    rated = [-math.inf if math.isnan(value) else float(value) for value in row]
    return sorted(range(len(rated)), key=lambda place: -rated[place])
