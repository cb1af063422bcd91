"""A language model that is no model: what it says follows from the questions' texts by rules of the test."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b

import numpy as np


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

    def write(self, asks, max_tokens, stop=()):
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
