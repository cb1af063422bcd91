"""A language model that is no model: what it says follows from the questions' texts by rules of the test."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from hashlib import blake2b

import numpy as np

from rerankdistill.cards import parse
from rerankdistill.scores.card import parse_teacher
from rerankdistill.types import Group, Query

SCALES = {"causal": "logit", "graded": "grade", "query_likelihood": "logprob", "reasoning": "probability"}
KINDS = tuple(SCALES)
GROUPS = [
    Group(Query("1", "what is a cat"), ("a", "b", "c"), ("the cat sat", "dogs run", "stocks fell on Monday")),
    Group(Query("2", "why dogs run"), ("b", "a"), ("dogs run", "the cat sat")),
    Group(Query("3", "nothing"), (), ()),
]
THOUGHT = "It says so. </think> true"


def number(*parts: str) -> float:
    """Between -4 and 4, by the texts alone."""
    mark = blake2b("\x00".join(parts).encode("utf-8", "surrogatepass"), digest_size=4).digest()
    return int.from_bytes(mark, "little") / 2**32 * 8 - 4


class FakeModel:
    """Rates by hash, or by ``rule(ask, option)``; writes by ``says(ask)``. A token is a word.

    ``asked`` keeps every question, ``calls`` how many there were in each call.
    """

    def __init__(
        self, rule: Callable | None = None, says: Callable | None = None, exact: bool = True, fingerprint: str = "fake"
    ) -> None:
        self.rule = rule or (lambda ask, option: number(ask.system, ask.user, ask.answer, option))
        self.says, self.exact, self.fingerprint = says, exact, fingerprint
        self.usage: dict[str, float] = {"requests": 0}
        self.asked: list = []
        self.options: list[tuple[str, ...]] = []
        self.calls: list[int] = []

    def fit(self, text, limit):
        return text if limit is None else " ".join(text.split(" ")[:limit])

    def choose(self, asks, options):
        self._note(asks)
        self.options.append(tuple(options))
        return np.array([[self.rule(ask, option) for option in options] for ask in asks], np.float32)

    def write(self, asks, max_tokens, stop=(), how=None):
        self._note(asks)
        return [" ".join(self.says(ask).split(" ")[:max_tokens]) for ask in asks]

    def likelihood(self, asks, texts):
        self._note(asks)
        self.options.append(tuple(texts))
        return np.array([-abs(self.rule(ask, text)) for ask, text in zip(asks, texts, strict=True)], np.float32)

    def _note(self, asks):
        self.asked += asks
        self.calls.append(len(asks))
        self.usage["requests"] += len(asks)


def teacher(kind, model=None, scale=None, lengths=None, **options):
    """A teacher of this kind on a fake model."""
    fields = {"name": "t", "kind": kind, "scale": scale or SCALES[kind], "lengths": lengths or {}}
    module = importlib.import_module(f"rerankdistill.scores.kinds.{kind}").Kind
    model = model or FakeModel(says=lambda ask: THOUGHT)
    return module.asking(model, parse_teacher(fields, "test"), parse(module.Options, options, "test"))


def scores(kind, groups=GROUPS):
    return [answer.scores for answer in kind.judge(groups)]
