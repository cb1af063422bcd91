"""Language models that know how much each document is worth, because its text says so: ``doc 3 worth 17``."""

from __future__ import annotations

import re

import numpy as np
from llm_fake import FakeModel

from rerankdistill.types import Group, Query

SHOWN = re.compile(r"\[(\w+)\] .*?worth (\d+)")
PAIR = re.compile(r"Passage A: .*?worth (\d+).*Passage B: .*?worth (\d+)", re.DOTALL)


def group(values, query="q") -> Group:
    """A list whose documents have these values."""
    names = tuple(f"d{place}" for place in range(len(values)))
    texts = tuple(f"doc {place} worth {value}" for place, value in enumerate(values))
    return Group(Query(query, f"query {query}"), names, texts)


def ordered(ask) -> str:
    """What a perfect writer says."""
    found = sorted(SHOWN.findall(ask.user), key=lambda each: -int(each[1]))
    return " > ".join(f"[{name}]" for name, _ in found).removeprefix(ask.answer)


def by_letter(ask, option) -> float:
    return float(dict(SHOWN.findall(ask.user))[option])


def duel(scale=1.0, bias=0.0):
    """A rule that says " A" or " B" by the difference of the two values, and leans to the first by ``bias``."""

    def rule(ask, option):
        first, second = map(int, PAIR.search(ask.user).groups())
        margin = scale * (first - second) + bias
        return (margin if option == " A" else -margin) / 2

    return rule


def writer(says=ordered) -> FakeModel:
    return FakeModel(says=says)


def best_first(values) -> list[float]:
    """Scores of scale rank for a list with different values."""
    return np.argsort(np.argsort(values)).astype(float).tolist()
