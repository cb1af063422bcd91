"""What the kinds that show a language model a window of documents share: options, questions, the sliding."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar, Generic, Literal, Self, TypeVar

from pydantic import Field, PositiveInt, model_validator

from rerankdistill.artifacts import fingerprint
from rerankdistill.cards import parse
from rerankdistill.scores.card import Context, ScorerCard
from rerankdistill.scores.llm.model import Ask, LanguageModel
from rerankdistill.scores.llm.open import HOW, LocalOptions, open_model
from rerankdistill.scores.llm.permutation import LETTERS, Window, identifiers, rank_scores, shuffled, slide
from rerankdistill.types import FloatArray, Group, Scale, View

CITATION = re.compile(r"\[(\w{1,3})\]")
"""What would look like an identifier in a passage."""


class WindowOptions(LocalOptions):
    """How a list is shown; see :class:`~rerankdistill.scores.llm.open.LocalOptions` for how the model is run.

    In the texts ``{query}``, ``{count}`` (how many passages the window shows) and ``{example}`` (two identifiers as an
    order) are filled in, in ``passage`` ``{id}`` and ``{text}``.

    Attributes:
        window: how many documents a question shows; a shorter list is shown as a whole.
        step: how far the window moves to the front, smaller than the window; half of it where nothing is said.
        passes: how often the windows go over the list.
        shuffle: start from a random order instead of the group's own (to see how much the start decides).
        seed: of that order.
        identifiers: ``numbers`` or ``letters`` (26 at most).
        system, intro, passage, question: the system's message, and the parts of the user's.
        answer: how the model's answer begins.
    """

    window: int = Field(default=20, ge=2)
    step: PositiveInt | None = None
    passes: PositiveInt = 1
    shuffle: bool = False
    seed: int = 0
    identifiers: Literal["numbers", "letters"] = "numbers"
    system: str = "You put passages in order by how well they answer a search query."
    intro: str = "Search query: {query}\n\nHere are {count} passages, each behind its identifier in brackets.\n\n"
    passage: str = "[{id}] {text}\n"
    question: str = (
        "\nSearch query: {query}\n\nRank these {count} passages by how relevant they are to the query, the most "
        "relevant first. Name every identifier once, in this form: {example}. Write the ranking and nothing else."
    )
    answer: str = ""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.stride >= self.window:
            what = f"step {self.step} must be smaller than window {self.window}"
            raise ValueError(f"{what}, or nothing is carried along")
        if self.letters and self.window > len(LETTERS):
            raise ValueError(f"window: there are {len(LETTERS)} letters; choose identifiers = 'numbers'")
        try:
            for text in (self.intro, self.question):
                text.format(query="", count=0, example="")
            shown = self.passage.format(id="\0", text="\1")
        except (KeyError, IndexError, ValueError) as error:
            what = "intro and question know {query}, {count} and {example}, passage {id} and {text}"
            raise ValueError(f"{what} (double other braces)") from error
        if not ("\0" in shown and "\1" in shown):
            raise ValueError("passage must show {id} and {text}")
        return self

    @property
    def letters(self) -> bool:
        return self.identifiers == "letters"

    @property
    def stride(self) -> int:
        """The step."""
        return self.step or self.window // 2


AnyOptions = TypeVar("AnyOptions", bound=WindowOptions)
Answered = TypeVar("Answered")


class Windowed(ABC, Generic[AnyOptions]):
    """A teacher that reads whole lists through windows.

    ``usage`` holds the model's counters, ``windows`` (questions asked), ``malformed`` (answers that were not a complete
    order) and ``unread`` (those of them that ordered no two documents: the window stays as it was).
    """

    Options: ClassVar[type[WindowOptions]]
    mark: ClassVar[str]
    """Stands for the kind in fingerprints."""
    needs_texts = True
    unit = "list"
    batch_pairs = 40
    scale: Scale

    def __init__(self, model: LanguageModel, card: ScorerCard, options: AnyOptions) -> None:
        self.model, self.options = model, options
        self.view: View = card.view
        self.lengths = card.lengths
        self._counts = {"windows": 0.0, "malformed": 0.0, "unread": 0.0}

    @classmethod
    def open(cls, card: ScorerCard, context: Context) -> Self:
        """The teacher of a card, with the model that it names; raises CardError."""
        options: Any = parse(cls.Options, card.options, f"{card.name}: options")
        return cls.asking(open_model(card, context, options), card, options)

    @classmethod
    @abstractmethod
    def asking(cls, model: LanguageModel, card: ScorerCard, options: AnyOptions) -> Self:
        """The teacher that asks this model; raises CardError where the card claims another scale."""

    @abstractmethod
    def arrange(self, count: int, asks: Sequence[Ask]) -> Sequence[list[int]]:
        """For questions that show ``count`` documents each, a permutation of these, best first."""

    @cached_property
    def fingerprint(self) -> str:
        """Of the model, the lengths, the view, the windows and every word of the question."""
        lengths = self.lengths.model_dump(include={"query", "doc"})
        options = self.options.model_dump(exclude=set(HOW))
        return fingerprint(self.mark, self.model.fingerprint, lengths, self.view, options)

    @property
    def usage(self) -> Mapping[str, float]:
        return {**self.model.usage, **self._counts}

    def judge(self, groups: Sequence[Group]) -> list[FloatArray]:
        """For each group ``[n]`` scores of scale rank: ``n - rank``, from ``n - 1`` for the best down to 0."""
        orders = [self.start(group) for group in groups]
        shown = [self.shown(group) for group in groups]
        options = self.options

        def arrange(windows: list[Window]) -> Sequence[list[int]]:
            return self.ask(groups, shown, windows, self.arrange)

        slide(orders, options.window, options.stride, options.passes, arrange)
        return [rank_scores(order) for order in orders]

    def ask(
        self,
        groups: Sequence[Group],
        shown: Sequence[Sequence[str]],
        windows: Sequence[Window],
        read: Callable[[int, Sequence[Ask]], Sequence[Answered]],
    ) -> list[Answered]:
        """For each window what ``read`` makes of its question. Those of one size are asked together, for how much is
        asked of the model depends on it, and must not depend on what else is in the batch."""
        found: dict[int, Answered] = {}
        sizes = [len(window.places) for window in windows]
        for size in dict.fromkeys(sizes):
            rows = [row for row, each in enumerate(sizes) if each == size]
            some = [windows[row] for row in rows]
            asks = [self.question(groups[window.row], shown[window.row], window.places) for window in some]
            self._counts["windows"] += len(some)
            found |= zip(rows, read(size, asks), strict=True)
        return [found[row] for row in range(len(windows))]

    def start(self, group: Group) -> list[int]:
        """The order that the windows start from."""
        if self.options.shuffle:
            return shuffled(len(group.doc_ids), self.options.seed, group.query.text, *group.texts)
        return list(range(len(group.doc_ids)))

    def shown(self, group: Group) -> list[str]:
        """The documents as they are shown: on one line, cut to ``lengths.doc`` tokens, ``[3]`` written as ``(3)``."""
        texts = (CITATION.sub(r"(\1)", " ".join(text.split())) for text in group.texts)
        return [self.model.fit(text, self.lengths.doc) for text in texts]

    def question(self, group: Group, shown: Sequence[str], places: Sequence[int]) -> Ask:
        """What is asked about the documents at these places, in this order."""
        options, names = self.options, self.names(len(places))
        example = f"[{names[1]}] > [{names[0]}]"
        words = {"query": self.model.fit(group.query.text, self.lengths.query), "count": len(places)}
        passages = [options.passage.format(id=name, text=shown[at]) for name, at in zip(names, places, strict=True)]
        own = "".join(passages) + options.question.format(**words, example=example)
        return Ask(options.intro.format(**words, example=example), own, options.answer, options.system)

    def names(self, count: int) -> list[str]:
        """The identifiers of a window."""
        return identifiers(count, self.options.letters)
