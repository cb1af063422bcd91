"""A language model that is asked which of two documents is better, as a teacher of preferences.

Qin et al., *Large Language Models are Effective Text Rankers with Pairwise Ranking Prompting* (PRP), arXiv 2306.17563.
P(i beats j) is read from the ratings of the two words that may come first in the answer. Every pair is asked in both
orders and the probabilities are averaged: a model that likes whatever comes first then says nothing, rather than the
first stage's order.

The preferences themselves are kept as each document's ``details`` for pairwise losses: ``[n]`` P(this beats document
j), NaN where the two were not compared.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Literal, Self

import numpy as np
from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from rerankdistill.artifacts import fingerprint
from rerankdistill.cards import parse
from rerankdistill.scores.card import Context, ScorerCard
from rerankdistill.scores.llm import preferences
from rerankdistill.scores.llm.model import Ask, LanguageModel
from rerankdistill.scores.llm.open import HOW, LocalOptions, open_model
from rerankdistill.scores.llm.permutation import rank_scores, shuffled
from rerankdistill.scores.llm.preferences import Duel, Preferences, Strategy
from rerankdistill.scores.pairs import text_hash
from rerankdistill.types import Answer, FloatArray, Group, Scale, View


class PairwiseOptions(LocalOptions):
    """Which pairs are asked about, how, and what becomes of the answers.

    In the texts ``{query}``, ``{first}`` and ``{second}`` are filled in.

    Attributes:
        strategy: ``all`` pairs; a ``sample`` in which each document meets ``opponents`` others; or a sort that needs
            far fewer: ``heapsort`` for the best ``top``, ``sliding`` for ``passes`` passes of a bubble sort.
        opponents: an even number.
        top: how many places of a heapsort are decided; the others keep the list's order.
        passes: each decides one place.
        aggregate: scores of ``all`` and ``sample``: ``wins``: the mean probability of beating the others (scale
            probability); ``bradley_terry``: strengths that explain the preferences (scale logit). Sorts give ranks.
        prior: how strongly Bradley-Terry strengths are drawn to 0.
        both_orders: ask every pair in both orders; otherwise in one, by a coin that falls the same way every time.
        seed: of the sample and the coin.
        system: the system's message; left out where it is empty.
        intro: what comes before the passages, with ``{query}``.
        first, second: the two passages.
        question: what comes behind them.
        answer: how the model's answer begins.
        choices: what it goes on with where the first, and where the second passage is better. Each must begin with a
            token of its own.
    """

    strategy: Literal["all", "sample", "heapsort", "sliding"] = "all"
    opponents: int = Field(default=6, ge=2, multiple_of=2)
    top: PositiveInt = 10
    passes: PositiveInt = 10
    aggregate: Literal["wins", "bradley_terry"] = "wins"
    prior: PositiveFloat = 0.01
    both_orders: bool = True
    seed: int = 0
    system: str = ""
    intro: str = "Which of two passages answers this search query better?\n\nQuery: {query}\n\n"
    first: str = "Passage A: {first}\n\n"
    second: str = "Passage B: {second}\n\n"
    question: str = "Query: {query}\n\nAnswer with Passage A or Passage B and nothing else."
    answer: str = "Passage"
    choices: tuple[str, str] = (" A", " B")

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if "aggregate" in self.model_fields_set and self.sorts:
            raise ValueError(f"aggregate: strategy {self.strategy!r} gives ranks; there is nothing to aggregate")
        try:
            self.intro.format(query="")
            self.question.format(query="")
            shown = self.first.format(first="\0"), self.second.format(second="\0")
        except (KeyError, IndexError, ValueError) as error:
            what = "intro and question know {query} alone, first {first} and second {second} (double other braces)"
            raise ValueError(what) from error
        if not all("\0" in text for text in shown):
            raise ValueError("first must show {first}, second {second}")
        return self

    @property
    def sorts(self) -> bool:
        """Whether the strategy gives an order."""
        return self.strategy in ("heapsort", "sliding")

    @property
    def scale(self) -> Scale:
        """That of the scores."""
        if self.sorts:
            return Scale.RANK
        return Scale.LOGIT if self.aggregate == "bradley_terry" else Scale.PROBABILITY


class Kind:
    """Preferences of a language model. ``scale`` is ``probability`` (mean win rate), ``logit`` (Bradley-Terry) or
    ``rank`` (``n - rank``, from a sort), by its options.

    ``usage`` holds the model's counters, ``comparisons`` (pairs that were asked about, in whatever orders),
    ``malformed`` and ``unread`` (answers that named neither document), ``both_ways`` (pairs answered in both orders)
    and ``flips`` (those of them that the order of asking decided: the same side was chosen both times).
    """

    Options = PairwiseOptions
    needs_texts = True
    unit = "list"
    keeps = ("details",)
    details_are = "preferences"
    partial = True
    batch_pairs = 20

    def __init__(self, model: LanguageModel, card: ScorerCard, options: PairwiseOptions) -> None:
        self.model, self.options, self.lengths = model, options, card.lengths
        self.scale: Scale = options.scale
        self.view: View = card.view
        self._counts = {"comparisons": 0.0, "malformed": 0.0, "unread": 0.0, "both_ways": 0.0, "flips": 0.0}

    @classmethod
    def open(cls, card: ScorerCard, context: Context) -> Self:
        """The teacher of a card, with the model that it names; raises CardError."""
        options = parse(PairwiseOptions, card.options, f"{card.name}: options")
        return cls.asking(open_model(card, context, options), card, options)

    @classmethod
    def asking(cls, model: LanguageModel, card: ScorerCard, options: PairwiseOptions) -> Self:
        """The teacher that asks this model; raises CardError where the card claims another scale."""
        card.require_scale(options.scale)
        return cls(model, card, options)

    @cached_property
    def fingerprint(self) -> str:
        """Of the model, the lengths, the view, the strategy and every word of the question."""
        lengths = self.lengths.model_dump(include={"query", "doc"})
        options = self.options.model_dump(exclude=set(HOW))
        return fingerprint("pairwise", self.model.fingerprint, lengths, self.view, options)

    @property
    def usage(self) -> Mapping[str, float]:
        return {**self.model.usage, **self._counts}

    def judge(self, groups: Sequence[Group]) -> list[Answer]:
        """For each group its scores, and as details the rows of P(i beats j). A document whose every comparison stayed
        without an answer has no score (NaN), unless the scores are ranks."""
        texts = [[self.model.fit(text, self.lengths.doc) for text in group.texts] for group in groups]
        queries = [self.model.fit(group.query.text, self.lengths.query) for group in groups]
        tables = [Preferences(len(group.doc_ids)) for group in groups]
        strategies = [self._strategy(table, group) for table, group in zip(tables, groups, strict=True)]
        orders = preferences.play(tables, strategies, lambda duels: self._ask(queries, texts, duels))
        scores = [self._scores(table, order) for table, order in zip(tables, orders, strict=True)]
        return [Answer(each, tuple(table.won)) for each, table in zip(scores, tables, strict=True)]

    def _strategy(self, table: Preferences, group: Group) -> Strategy:
        options = self.options
        match options.strategy:
            case "all":
                return preferences.all_pairs(table)
            case "sample":
                places = shuffled(len(table), options.seed, group.query.text, *group.texts)
                return preferences.sample(table, options.opponents, places)
            case "heapsort":
                return preferences.heapsort(table, options.top)
            case "sliding":
                return preferences.sliding(table, options.passes)

    def _scores(self, table: Preferences, order: list[int] | None) -> FloatArray:
        if order is not None:
            return rank_scores(order)
        if self.options.aggregate == "wins":
            return preferences.win_rates(table.won)
        return preferences.bradley_terry(table.won, self.options.prior)

    def _ask(self, queries: Sequence[str], texts: Sequence[Sequence[str]], duels: Sequence[Duel]) -> list[float]:
        """P(first beats second) of each."""
        self._counts["comparisons"] += len(duels)
        sides = [self._sides(queries[duel.row], texts[duel.row], duel) for duel in duels]
        asked = [(at, swapped) for at, both in enumerate(sides) for swapped in both]
        asks = []
        for at, swapped in asked:
            row, a, b = duels[at]
            a, b = (b, a) if swapped else (a, b)
            asks.append(self.question(queries[row], texts[row][a], texts[row][b]))
        chances = _first_chosen(self.model.choose(asks, self.options.choices))
        self._counts["malformed"] += int(np.isnan(chances).sum())
        self._counts["unread"] += int(np.isnan(chances).sum())
        found: list[list[float]] = [[] for _ in duels]
        for (at, swapped), chance in zip(asked, chances.tolist(), strict=True):
            if not math.isnan(chance):
                found[at].append(1 - chance if swapped else chance)
        twice = [each for each in found if len(each) > 1]
        self._counts["both_ways"] += len(twice)
        self._counts["flips"] += sum((one > 0.5) != (other > 0.5) for one, other in twice)
        return [sum(each) / len(each) if each else math.nan for each in found]

    def _sides(self, query: str, texts: Sequence[str], duel: Duel) -> tuple[bool, ...]:
        """The orders in which a pair is asked: as it is (False), swapped (True), or both."""
        if self.options.both_orders:
            return (False, True)
        low, high = sorted((duel.first, duel.second))
        coin = text_hash("\0".join((str(self.options.seed), query, texts[low], texts[high]))) % 2 == 1
        return (coin != (duel.first > duel.second),)

    def question(self, query: str, first: str, second: str) -> Ask:
        """Which of two texts is better. The query and the first one are its shared part."""
        options = self.options
        shared = options.intro.format(query=query) + options.first.format(first=first)
        own = options.second.format(second=second) + options.question.format(query=query)
        return Ask(shared, own, options.answer, options.system)


def _first_chosen(rated: FloatArray) -> FloatArray:
    """``[m]`` P(the first passage) from ratings ``[m, 2]``. A choice without a rating (it was not among the likeliest
    tokens of an endpoint) counts as never made; NaN where neither has one."""
    first, second = (np.where(np.isnan(column), -np.inf, column).astype(np.float64) for column in rated.T)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.exp(-np.logaddexp(0, second - first)), np.float32)
