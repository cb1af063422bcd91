"""Any OpenAI-compatible endpoint as a teacher, for every kind that asks a language model questions.

How it is asked is the business of the kind named by ``ask``, with its own options in the table ``question``; this file
hands it a model that sits behind an address. What is said of a score there (scale, unit, what is kept) holds here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from rerankdistill.artifacts import fingerprint
from rerankdistill.cards import parse
from rerankdistill.errors import CardError
from rerankdistill.scores.card import Context, ScorerCard
from rerankdistill.scores.kinds import causal, first_token, graded, listwise, pairwise, query_likelihood, reasoning
from rerankdistill.scores.llm.endpoint import ChatEndpoint, EndpointOptions
from rerankdistill.scores.llm.open import HOW
from rerankdistill.types import Answer, FloatArray, Group, Scale, View

ROUNDS = 4
"""Requests that each connection makes in a first batch: what an interruption costs at most."""


ASKERS: dict[str, Any] = {
    "causal": causal.Kind,
    "graded": graded.Kind,
    "pairwise": pairwise.Kind,
    "listwise": listwise.Kind,
    "first_token": first_token.Kind,
    "reasoning": reasoning.Kind,
    "query_likelihood": query_likelihood.Kind,
}
"""The classes that word the questions. None of their files loads a model, or anything heavy, when it is imported."""


class ChatApiOptions(EndpointOptions):
    """What to ask, of whom; see also :class:`~rerankdistill.scores.llm.endpoint.EndpointOptions`.

    Attributes:
        ask: the kind of teacher that words the questions and reads the answers.
        question: that kind's own options.
    """

    ask: Literal["causal", "graded", "pairwise", "listwise", "first_token", "reasoning", "query_likelihood"]
    question: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _asked(self) -> Self:
        here = sorted(HOW & set(self.question))
        if here:
            raise ValueError(f"question: {', '.join(here)} say how a model is run here, and this one is not")
        try:
            parse(ASKERS[self.ask].Options, self.question, "question")
        except CardError as error:
            raise ValueError(f"question: {error.what}") from error
        return self


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
        sibling = ASKERS[options.ask]
        question = parse(sibling.Options, options.question, f"{card.name}: options.question")
        model = ChatEndpoint(card.model, options, card.revision, where)
        found = cls(sibling.asking(model, card, question), model, options)
        fine = options.ask == "pairwise"  # whose strengths come of many answers, each of which may be 1 or 0
        if options.without_logprobs == "text" and not fine and found.scale in (Scale.LOGIT, Scale.LOGPROB):
            what = f"without_logprobs = 'text' gives 1 or 0 at best, and no scores of scale {str(found.scale)!r}"
            fix = "ask for probabilities (scale = 'probability' and the question's own option for it), or for grades"
            raise CardError(what, where=where, fix=fix)
        found._check_prompt(where)
        return found

    def _check_prompt(self, where: str) -> None:
        """Raises CardError for a prompt that would not be read as it is meant behind an endpoint."""
        options = self.options
        prompt: Any = getattr(self.asker, "prompt", None)
        plain = getattr(prompt, "written_out", False)
        if options.ask == "query_likelihood":
            if not plain and "completion_layout" not in options.model_fields_set:
                what = "a likelihood is asked for without a chat template, and this prompt wants one"
                fix = "write question.template = 'upr-plain', or the model's chat markup in completion_layout"
                raise CardError(what, where=where, fix=fix)
        elif plain:
            what = "the prompt is written out, and the server would put its chat template around it"
            raise CardError(what, where=where, fix="choose a question.template that is not written out")
        if options.ask == "reasoning" and options.prefill == "user" and prompt.answer:
            what = "the verdict is read behind the model's own thoughts, and prefill = 'user' cannot put them there"
            fix = "write prefill = 'continue' (vLLM, SGLang) or 'message' (llama.cpp, Ollama), or "
            raise CardError(what, where=where, fix=f"{fix}question.template = 'step-by-step'")

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
    def details_are(self) -> str:
        return str(getattr(self.asker, "details_are", ""))

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
