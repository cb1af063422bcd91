"""A language model that writes the order of a list, window by window, as a teacher of ranks.

Sun et al., *Is ChatGPT Good at Search? Investigating Large Language Models as Re-Ranking Agents* (RankGPT), arXiv
2304.09542; Pradeep et al., *RankZephyr*, arXiv 2312.02724. The question has their structure in words of its own; a card
may say it in others.

An answer always becomes an order: an identifier that comes again or that nobody has is dropped, missing ones keep their
present order behind the others, and an answer without any (an empty one, too) leaves the window as it was. Answers
that did not name each identifier exactly once are counted in ``usage["malformed"]``, all of them in
``usage["windows"]``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from pydantic import PositiveInt

from rerankdistill.scores.card import ScorerCard
from rerankdistill.scores.llm.model import Ask, LanguageModel
from rerankdistill.scores.llm.permutation import named, parse
from rerankdistill.scores.llm.windows import Windowed, WindowOptions
from rerankdistill.types import Scale

TOKENS = 7
"""For one identifier in an answer, ``[12] > `` by single characters."""


class ListwiseOptions(WindowOptions):
    """How an order is asked for; see also :class:`~rerankdistill.scores.llm.windows.WindowOptions`.

    Attributes:
        max_tokens: the longest answer; seven tokens a document where nothing is said.
        stop: texts that end an answer.
    """

    max_tokens: PositiveInt | None = None
    stop: tuple[str, ...] = ()


class Kind(Windowed[ListwiseOptions]):
    """Orders that a language model writes. A score is ``n - rank``: higher is better, and differences mean nothing."""

    Options = ListwiseOptions
    mark = "listwise"
    scale = Scale.RANK

    @classmethod
    def asking(cls, model: LanguageModel, card: ScorerCard, options: ListwiseOptions) -> Self:
        card.require_scale(cls.scale)
        return cls(model, card, options)

    def arrange(self, count: int, asks: Sequence[Ask]) -> Sequence[list[int]]:
        written = self.model.write(asks, self.options.max_tokens or TOKENS * count, self.options.stop)
        texts = [self.options.answer + text for text in written]
        answers = [parse(text, count, self.options.letters) for text in texts]
        told = [len({*named(text, count, self.options.letters)} - {None}) for text in texts]
        self._counts["malformed"] += sum(not answer.whole for answer in answers)
        self._counts["unread"] += sum(documents < 2 for documents in told)
        return [answer.order for answer in answers]
