"""Any OpenAI-compatible endpoint as a teacher, for every kind that asks a language model questions.

How it is asked is the business of the kind named by ``ask``, with its own options in the table ``question``; this file
hands it a model that sits behind an address. What is said of a score there (scale, unit, what is kept) holds here.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Literal, Self

from pydantic import Field

from rerankdistill.artifacts import fingerprint
from rerankdistill.cards import parse
from rerankdistill.errors import CardError
from rerankdistill.scores.card import Context, ScorerCard
from rerankdistill.scores.llm.endpoint import ChatEndpoint, EndpointOptions
from rerankdistill.types import Answer, FloatArray, Group, Scale, View

ROUNDS = 4
"""Requests that each connection makes in a first batch: what an interruption costs at most."""


class ChatApiOptions(EndpointOptions):
    """What to ask, of whom; see also :class:`~rerankdistill.scores.llm.endpoint.EndpointOptions`.

    Attributes:
        ask: the kind of teacher that words the questions and reads the answers.
        question: that kind's own options.
    """

    ask: Literal["causal", "graded", "pairwise", "listwise", "reasoning", "query_likelihood"]
    question: dict[str, Any] = Field(default_factory=dict)


class Kind:
    """A teacher behind an endpoint. Nothing is sent before :meth:`judge`."""

    Options = ChatApiOptions
    needs_texts = True
    partial = True

    def __init__(self, asker: Any, model: ChatEndpoint, options: ChatApiOptions) -> None:
        self.asker, self.model, self.options = asker, model, options
        self.view: View = asker.view
        self.scale: Scale = asker.scale

    @classmethod
    def open(cls, card: ScorerCard, context: Context) -> Self:  # noqa: ARG003
        """The teacher of a card.

        Raises:
            CardError: mistakes in the options, no model, or an endpoint without log-probabilities (``text``) for a
                scale that needs them.
        """
        options = parse(ChatApiOptions, card.options, f"{card.name}: options")
        where = f"teacher {card.name!r}"
        if not card.model:
            raise CardError("no model", where=where, fix="write model = '...', what the server calls it")
        sibling = importlib.import_module(f"rerankdistill.scores.kinds.{options.ask}").Kind
        question = parse(sibling.Options, options.question, f"{card.name}: options.question")
        model = ChatEndpoint(card.model, options, card.revision, where)
        found = cls(sibling.asking(model, card, question), model, options)
        if options.without_logprobs == "text" and found.scale in (Scale.LOGIT, Scale.LOGPROB):
            what = f"without_logprobs = 'text' gives 1 or 0 at best, and no scores of scale {str(found.scale)!r}"
            fix = "ask for probabilities (scale = 'probability' and the question's own option for it), or for grades"
            raise CardError(what, where=where, fix=fix)
        return found

    @cached_property
    def fingerprint(self) -> str:
        """Of the question and of the model as it is asked."""
        return fingerprint("chat_api", self.options.ask, self.asker.fingerprint, self.model.fingerprint)

    @property
    def unit(self) -> str:
        return str(getattr(self.asker, "unit", "pair"))

    @property
    def keeps(self) -> tuple[str, ...]:
        return tuple(getattr(self.asker, "keeps", ()))

    @property
    def usage(self) -> Mapping[str, float]:
        """The endpoint's counters, and those of the question's kind."""
        return {**self.model.usage, **getattr(self.asker, "usage", {})}

    def spent(self, usage: Mapping[str, float]) -> None:
        """What earlier runs have spent; it counts against the budgets."""
        self.model.spent(usage)

    @property
    def batch_pairs(self) -> int:
        return min(getattr(self.asker, "batch_pairs", 512), ROUNDS * self.options.concurrency)

    def judge(self, groups: Sequence[Group]) -> Sequence[FloatArray | Answer]:
        """What the question's kind makes of the answers.

        Raises:
            RerankDistillError: the endpoint is gone, refuses, or the budget is reached; see
                :class:`~rerankdistill.scores.llm.endpoint.ChatEndpoint`. Nothing of these groups is kept then.
        """
        answers: Sequence[FloatArray | Answer] = self.asker.judge(groups)
        return answers
