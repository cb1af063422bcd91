"""A language model that thinks first: it writes, its thinking is closed, and the verdict is read at the next token.

The score is P(true) against P(false) there (Rank1, Weller et al., arXiv 2502.18418), not the word that it would write.
Thinking that is not closed when the tokens run out is cut back to its last full sentence and closed by force. What was
written is kept with the score: to look into, and to filter by.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from pydantic import PositiveInt

from rerankdistill.errors import CardError
from rerankdistill.scores.card import ScorerCard
from rerankdistill.scores.llm.pointwise import Pointwise, PromptOptions, TwoWords, answers, sigmoid
from rerankdistill.scores.llm.prompts import Prompt, continued
from rerankdistill.types import Answer, Group, Scale

SENTENCE = re.compile(r"(?s).*[.!?。！？](?=\s|$|[\"')\]])[\"')\]]*")
SCALES = {"logit": Scale.LOGIT, "probability": Scale.PROBABILITY}


class ReasoningOptions(PromptOptions):
    """How long the model may think, and what is read then.

    Attributes:
        options: the words for relevant and for not; the first token of each is read. A space is put before them where
            the prompt's ``close`` ends without one.
        output: ``probability`` of the first word against the second, or its log-odds, ``logit``.
        max_thinking: tokens of thinking.
    """

    template: str = "reasoning"
    options: TwoWords = ("true", "false")
    output: Literal["probability", "logit"] = "probability"
    max_thinking: PositiveInt = 1024


class Kind(Pointwise[ReasoningOptions]):
    """A reasoning teacher. ``details`` of a document: both logits, that of the word for relevant first; ``traces``:
    what was thought. ``usage["forced"]`` counts the documents whose thinking was closed by force.

    The model is not stopped at the mark that closes its thinking, for then nobody could tell whether it came to an end:
    the few tokens behind the mark are thrown away.
    """

    Options = ReasoningOptions
    name = "reasoning"
    keeps = ("details", "traces")
    details_are = "logits"
    batch_pairs = 32

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]
        self.scale = self._scale(self.options)

    @classmethod
    def _scale(cls, options: ReasoningOptions) -> Scale:
        return SCALES[options.output]

    @classmethod
    def _prompt(cls, card: ScorerCard, options: ReasoningOptions) -> Prompt:
        prompt = super()._prompt(card, options)
        if not prompt.close.strip():
            what = f"the prompt {options.template!r} does not say what ends the thinking"
            fix = "give [options.prompt] a close, as '</think>', or choose template = 'step-by-step'"
            raise CardError(what, where=f"{card.name}: options", fix=fix)
        return prompt

    def judge(self, groups: Sequence[Group]) -> list[Answer]:
        asks, close = self.asks(*self.texts(groups)), self.prompt.close
        written = self.model.write(asks, self.options.max_thinking) if asks else []
        traces = [self._thought(text) for text in written]
        ends = [ask._replace(answer=ask.answer + trace + close) for ask, trace in zip(asks, traces, strict=True)]
        logits = self.rate(ends, [continued(close, option) for option in self.options.options])
        margins = logits[:, 0] - logits[:, 1]
        scores = sigmoid(margins) if self.options.output == "probability" else margins
        return answers(groups, scores, logits, traces)

    def _thought(self, text: str) -> str:
        """What was written up to the mark; without one, up to the last full sentence."""
        thought, mark, _ = text.partition(self.prompt.close.strip())
        if mark:
            return thought.rstrip()
        self.count("forced", 1)
        whole = SENTENCE.match(text)
        return (whole[0] if whole else text).rstrip()
