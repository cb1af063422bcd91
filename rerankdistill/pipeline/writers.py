"""What writes queries: the rules of the queries' room, or the language model that a teacher's card names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from rerankdistill.artifacts import fingerprint
from rerankdistill.errors import CardError
from rerankdistill.kinds import open_kind
from rerankdistill.pipeline.card import PipelineCard
from rerankdistill.queries import rules
from rerankdistill.queries.generate import Request
from rerankdistill.queries.salient import Salient
from rerankdistill.queries.styles import StyleCard
from rerankdistill.scores.card import Context, ScorerCard, load_placed
from rerankdistill.scores.llm.model import Ask, LanguageModel, Sampling
from rerankdistill.scores.llm.purse import Prices
from rerankdistill.types import Doc, View

PASSAGE_TOKENS = 200
WRITTEN_TOKENS = 48
BYTES, LAYOUT = 4, 16
"""For estimates: bytes of a token of English, and the tokens that a chat template puts around a request."""
SAMPLE = 200
"""Requests that an estimate looks at."""


class ByRules:
    """The writer that needs no language model."""

    mark = "rules"

    def __init__(self, docs: Sequence[Doc], seed: int) -> None:
        self.seed = seed
        self._salient = Salient(doc.view(View.TITLE_TEXT) for doc in docs)

    def __call__(self, requests: Sequence[Request]) -> list[str]:
        return [rules.write(each.doc, each.style, self._salient, self.seed + each.number) for each in requests]


@dataclass
class ByModel:
    """A language model that is asked with each style's prompt.

    Attributes:
        card: a teacher's card of a kind that asks a language model; only the model behind it is used.
    """

    card: ScorerCard
    context: Context
    temperature: float
    seed: int

    @cached_property
    def model(self) -> LanguageModel:
        opened = open_kind("scores", self.card.kind).open(self.card, self.context)
        found: Any = getattr(opened, "model", None)
        if not hasattr(found, "write"):
            fix = "name a teacher that asks a language model, such as smollm2-graded"
            raise CardError("there is no language model behind it that could write", where=self.card.name, fix=fix)
        model: LanguageModel = found
        return model

    @property
    def mark(self) -> str:
        return fingerprint(self.model.fingerprint, self.temperature)

    def __call__(self, requests: Sequence[Request]) -> list[str]:
        asks = [self._ask(request) for request in requests]
        seed = int(fingerprint(self.seed, [request.query_id for request in requests])[:8], 16) % 2**31
        texts = self.model.write(asks, WRITTEN_TOKENS, ("\n",), Sampling(self.temperature, seed))
        return [cleaned(text) for text in texts]

    def _ask(self, request: Request) -> Ask:
        passage = self.model.fit(request.doc.text, PASSAGE_TOKENS)
        before, _, after = request.style.prompt.partition("{passage}")
        before, after = (part.replace("{title}", request.doc.title) for part in (before, after))
        return Ask(f"{before}{passage}", after, request.style.answer)

    @property
    def prices(self) -> Prices:
        """What its tokens cost; nothing for a model that runs here."""
        own = self.card.options
        prompt, generated = (float(own.get(f"price_per_million_{part}", 0)) for part in ("prompt", "generated"))
        return Prices(prompt, generated)

    def tokens(self, requests: Sequence[Request]) -> tuple[int, int]:
        """About how many tokens requests have, by their bytes, and how many are written at most."""
        asks = (self._ask(request) for request in requests)
        sizes = (len((ask.user + ask.answer).encode("utf-8", "replace")) for ask in asks)
        return sum(size // BYTES + LAYOUT for size in sizes), WRITTEN_TOKENS * len(requests)


def foretold(writer: Any, new: Sequence[Request], every: int, seconds_each: float | None) -> Iterator[str]:
    """What a language model's work will take, said before it begins: tokens, time and money.

    Args:
        new: what is not written yet, of ``every`` so many.
        seconds_each: what a query took last time.
    """
    if not isinstance(writer, ByModel) or not new:
        return
    step = max(1, len(new) // SAMPLE)
    sample = new[::step]
    prompt, generated = (round(count * len(new) / len(sample)) for count in writer.tokens(sample))
    parts = [f"{len(new):,} of {every:,} queries to write: about {prompt:,} tokens of prompts, {generated:,} at most"]
    parts[0] += " to be written"
    if seconds_each is not None:
        parts.append(f"about {seconds_each * len(new) / 60:,.1f} minutes at the pace of last time")
    else:
        parts.append("the time left is shown from the first batch on")
    if cost := writer.prices.cost(prompt, generated):
        parts.append(f"at most about {cost:,.2f} of money at the card's prices")
    yield "; ".join(parts)


def cleaned(text: str) -> str:
    """What a model wrote, without the marks that it puts around a query."""
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    for opening in ("Question:", "Query:", "Title:", "Statement:", "Keywords:", "Answer:", "Q:", "-", "*", "1."):
        line = line.removeprefix(opening).strip()
    return line.strip("\"'“”‘’` ")


def open_writer(name: str, docs: Sequence[Doc], card: PipelineCard, temperature: float, seed: int) -> Any:
    """The writer of a name: empty for the rules, else a teacher's card.

    Raises:
        CardError: no such card, or one without a language model behind it.
    """
    if not name:
        return ByRules(docs, seed)
    first, *more = load_placed(name)
    if more:
        raise CardError("an ensemble cannot write queries", where=name, fix="name one of its members")
    return ByModel(first.card, Context(card.device, first.base), temperature, seed)


def speaks(style: StyleCard, name: str) -> bool:
    """Whether a writer can write a style."""
    return bool(style.prompt if name else style.rule)


def unable(styles: Sequence[StyleCard], name: str) -> Iterator[str]:
    """The styles that a writer cannot write."""
    return (style.name for style in styles if not speaks(style, name))
