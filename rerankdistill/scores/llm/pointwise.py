"""What all teachers share that ask a language model about one document at a time."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Annotated, Any, ClassVar, Generic, Self, TypeVar

import numpy as np
from pydantic import AfterValidator

from rerankdistill.artifacts import fingerprint
from rerankdistill.cards import parse
from rerankdistill.errors import CardError
from rerankdistill.scores.card import Context, ScorerCard
from rerankdistill.scores.llm.model import Ask, LanguageModel
from rerankdistill.scores.llm.open import HOW, LocalOptions, open_model
from rerankdistill.scores.llm.prompts import PAIR, Prompt, PromptTexts, resolve
from rerankdistill.types import Answer, FloatArray, Group, Scale

LEAST = -20.0
"""The least log-probability that an option is credited with that an endpoint did not list."""


class PromptOptions(LocalOptions):
    """How the model is run, and what it is asked; see also :class:`~rerankdistill.scores.llm.open.LocalOptions`.

    Attributes:
        template: a shipped prompt by name; see :mod:`rerankdistill.scores.llm.prompts`.
        prompt: texts that stand in place of the template's.
    """

    template: str = "plain"
    prompt: PromptTexts = PromptTexts()


def _differ(words: tuple[str, str]) -> tuple[str, str]:
    if not all(word.strip() for word in words) or words[0].strip() == words[1].strip():
        raise ValueError("two different words are needed")
    return words


TwoWords = Annotated[tuple[str, str], AfterValidator(_differ)]
"""The words for relevant and for not."""

O = TypeVar("O", bound=PromptOptions)  # noqa: E741


class Pointwise(Generic[O]):
    """The base of the kinds; each says what it reads of the model's answer.

    A kind's ``scale`` is a class attribute, or set by :meth:`_scale` from its options.
    """

    Options: ClassVar[type[Any]]
    name: ClassVar[str]
    """The kind's, for the fingerprint."""
    shows: ClassVar[frozenset[str]] = PAIR
    needs_texts = True
    keeps: ClassVar[tuple[str, ...]] = ("details",)
    batch_pairs = 64
    """Few: such a teacher is slow, and a kill costs a batch."""
    scale: Scale

    def __init__(self, model: LanguageModel, card: ScorerCard, options: O) -> None:
        self.model, self.options = model, options
        self.view, self.lengths = card.view, card.lengths
        self.where = f"teacher {card.name!r}"
        self.prompt = self._prompt(card, options)
        self.counts: dict[str, float] = {}

    @classmethod
    def open(cls, card: ScorerCard, context: Context) -> Self:
        """The teacher of a card, with the model loaded here when it is first asked.

        Raises:
            CardError: mistakes in the options or the prompt, a scale that the kind does not give, or a prompt that is
                written out beside a chat template.
        """
        options = parse(cls.Options, card.options, f"{card.name}: options")
        if cls._prompt(card, options).written_out and options.chat_template != "none":
            what = (
                f"the prompt {options.template!r} is written out, and the model's chat template would be put around it"
            )
            raise CardError(what, where=f"teacher {card.name!r}", fix="write chat_template = 'none' in the options")
        return cls.asking(open_model(card, context, options), card, options)

    @classmethod
    def asking(cls, model: LanguageModel, card: ScorerCard, options: O) -> Self:
        """The same teacher on a model that somebody else opened (an endpoint).

        Raises:
            CardError: as :meth:`open`.
        """
        card.require_scale(cls._scale(options))
        return cls(model, card, options)

    @classmethod
    def _scale(cls, options: O) -> Scale:  # noqa: ARG003
        return cls.scale

    @classmethod
    def _prompt(cls, card: ScorerCard, options: O) -> Prompt:
        return resolve(options.template, options.prompt, f"{card.name}: options", cls.shows)

    @cached_property
    def fingerprint(self) -> str:
        """Of the model and its revision and dtype, the prompt's texts, the lengths, the view, and what is read."""
        options = self.options.model_dump(mode="json", exclude={*HOW, "template", "prompt"})
        prompt, lengths = self.prompt.model_dump(), self.lengths.model_dump()
        return fingerprint(self.name, self.model.fingerprint, prompt, lengths, self.view, options)

    @property
    def usage(self) -> Mapping[str, float]:
        """The model's counters and the kind's own."""
        return {**self.model.usage, **self.counts}

    @abstractmethod
    def judge(self, groups: Sequence[Group]) -> list[Answer]:
        """For each group its documents' scores; NaN where an endpoint's model named none of the options."""

    def texts(self, groups: Sequence[Group]) -> tuple[list[str], list[str]]:
        """Query and document of every pair, cut to the card's lengths."""
        queries = self.fit([group.query.text for group in groups], self.lengths.query)
        sizes = [len(group.doc_ids) for group in groups]
        docs = self.fit([text for group in groups for text in group.texts], self.lengths.doc)
        return [query for query, size in zip(queries, sizes, strict=True) for _ in range(size)], docs

    def fit(self, texts: Sequence[str], limit: int | None) -> list[str]:
        """The texts cut to ``limit`` tokens, each distinct one once."""
        cut = {text: self.model.fit(text, limit) for text in dict.fromkeys(texts)}
        return [cut[text] for text in texts]

    def asks(self, queries: Sequence[str], docs: Sequence[str]) -> list[Ask]:
        """The questions about these pairs."""
        return [self.prompt.ask(query, doc) for query, doc in zip(queries, docs, strict=True)]

    def rate(self, asks: Sequence[Ask], options: Sequence[str]) -> FloatArray:
        """``[len(asks), len(options)]`` logits, or log-probabilities where the model gives no more; NaN in whole rows.

        An endpoint lists the likeliest tokens alone. An option that is not among them is credited with as much as it
        can have at most: no more than the least likely of the options that are, and no more than what they leave.
        """
        if not asks:
            return np.empty((0, len(options)), np.float32)
        rows = np.asarray(self.model.choose(asks, options), np.float32)
        return rows if self.model.exact else self._listed(rows)

    def _listed(self, rows: FloatArray) -> FloatArray:
        gaps = np.isnan(rows)
        some = gaps.any(axis=1) & ~gaps.all(axis=1)
        if some.any():
            self.count("unlisted", int(gaps[some].sum()))
            rows = rows.copy()
            known = rows[some].astype(np.float64)
            left = np.log(np.maximum(1 - np.nansum(np.exp(known), axis=1), np.exp(LEAST)) / gaps[some].sum(axis=1))
            most = np.minimum(left, np.nanmin(known, axis=1))
            rows[some] = np.where(gaps[some], most[:, None], known)
        return rows

    def count(self, name: str, number: int) -> None:
        """Add to a counter of :attr:`usage`."""
        if number:
            self.counts[name] = self.counts.get(name, 0) + number


def answers(
    groups: Sequence[Group], scores: FloatArray, details: FloatArray | None = None, traces: Sequence[str] = ()
) -> list[Answer]:
    """What belongs to each group of ``n`` pairs in all: ``scores [n]``, ``details [n, k]``, ``traces [n]``."""
    found, start = [], 0
    for group in groups:
        rows = slice(start, start + len(group.doc_ids))
        kept = () if details is None else tuple(np.asarray(row, np.float32) for row in details[rows])
        found.append(Answer(np.asarray(scores[rows], np.float32), kept, tuple(traces[rows])))
        start = rows.stop
    return found


def sigmoid(margins: FloatArray) -> FloatArray:
    """The probabilities of log-odds, without overflow."""
    with np.errstate(invalid="ignore"):  # a margin that nobody told stays NaN
        return np.exp(-np.logaddexp(0, -margins.astype(np.float64))).astype(np.float32)
