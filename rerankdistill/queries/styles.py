"""Styles of queries, as cards: how one of them is asked of a language model, and how it is made without one."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from rerankdistill import cards
from rerankdistill.cards import Card

Rule = Literal["", "title", "first", "sentence", "gist", "keywords", "question"]
"""How a query is made of a document without a language model; see :mod:`rerankdistill.queries.rules`."""


class StyleCard(Card):
    """One style.

    Attributes:
        prompt: the user's message; ``{passage}`` and ``{title}`` stand for the document's.
        answer: how the model's answer begins; the query is what it writes after that, up to the end of the line.
        rule: how such a query is made without a language model; empty: it cannot.
        least, most: words of a query.
        copies: a query may stand in its document word for word.
    """

    name: str
    description: str = ""
    prompt: str = ""
    answer: str = ""
    rule: Rule = ""
    least: int = Field(default=2, ge=1)
    most: int = Field(default=32, ge=1)
    copies: bool = False

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.prompt and "{passage}" not in self.prompt:
            raise ValueError("prompt: it needs {passage}, where the document goes")
        if not self.prompt and not self.rule:
            raise ValueError("a style needs a prompt or a rule")
        if self.least > self.most:
            raise ValueError(f"least = {self.least} words and most = {self.most}")
        return self


def load_style(name: str) -> StyleCard:
    """A shipped style by its name, or one by the path of its file. Raises CardError with every mistake."""
    path = cards.find_card("styles", name)
    return cards.parse(StyleCard, cards.read_toml(path), str(path))


def shares(weights: dict[str, float], count: int) -> dict[str, int]:
    """How many of ``count`` queries each style gets, in proportion to its weight; the largest remainders are rounded
    up, so that they add up."""
    total = sum(weights.values())
    exact = {name: count * weight / total for name, weight in weights.items()}
    found = {name: int(share) for name, share in exact.items()}
    left = sorted(exact, key=lambda name: (found[name] - exact[name], name))
    for name in left[: count - sum(found.values())]:
        found[name] += 1
    return found
