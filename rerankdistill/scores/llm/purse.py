"""What an endpoint costs: counters that grow, and budgets that are never passed.

Before anything is sent, the worst case of all of it is set aside; each answer then replaces its part by what it really
took. What cannot be set aside is not sent.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rerankdistill.errors import MissingDependency

UNCONFIRMED = "unconfirmed_"
"""Before the name of a counter: the worst case of requests that were sent and never answered, which a server may
charge all the same. They count against the budget."""

LAYOUT_TOKENS = 64
"""The tokens that a chat template may put around a request and each of its messages, until a reply tells of more."""


class BudgetReached(MissingDependency):
    """The next requests might pass the budget; they were not sent."""


@dataclass(frozen=True, slots=True)
class Prices:
    """What a million tokens cost, and how much of it all may be spent (None: no limit); in one currency."""

    prompt: float = 0.0
    generated: float = 0.0
    budget: float | None = None
    budget_tokens: int | None = None

    def cost(self, prompt: float, generated: float) -> float:
        return (prompt * self.prompt + generated * self.generated) / 1e6


class Tokens:
    """The tokens of one request: how many at most. ``size``: the bytes of its texts, and no text has more tokens."""

    __slots__ = ("generated", "messages", "prompt", "size")

    def __init__(self, texts: Sequence[str], generated: int) -> None:
        self.size, self.messages, self.generated = (
            sum(len(text.encode("utf-8", "replace")) for text in texts),
            len(texts),
            generated,
        )
        self.prompt = 0

    def reckon(self, layout: int) -> None:
        """Fix the worst case of the prompt, with ``layout`` tokens around the request and each of its messages."""
        self.prompt = self.size + layout * (self.messages + 1)


class Purse:
    """Counts what requests take, and keeps within :class:`Prices`. Safe to use from several threads.

    Attributes:
        usage: ``prompt_tokens``, ``generated_tokens``, ``requests``, ``retries``, ``malformed``, ``cost``, and
            ``unconfirmed_tokens`` and ``unconfirmed_cost`` once there are any.
    """

    def __init__(self, prices: Prices, where: str) -> None:
        self.prices, self._where = prices, where
        self._usage: dict[str, float] = {}
        self._before = {"tokens": 0.0, "cost": 0.0}
        self._held = {"tokens": 0.0, "cost": 0.0}
        self._layout = LAYOUT_TOKENS
        self._lock = threading.Lock()

    @property
    def usage(self) -> dict[str, float]:
        with self._lock:
            return dict(self._usage)

    def spent(self, usage: Mapping[str, float]) -> None:
        """Take in what earlier runs have spent."""
        with self._lock:
            self._before = _totals(usage)

    def count(self, name: str, by: float = 1) -> None:
        with self._lock:
            self._add(name, by)

    def hold(self, requests: Sequence[Tokens]) -> None:
        """Set the worst case of these requests aside.

        Raises:
            BudgetReached: that might pass a budget; says what is left of it.
        """
        with self._lock:
            for each in requests:
                each.reckon(self._layout)
            prompt, generated = sum(each.prompt for each in requests), sum(each.generated for each in requests)
            wanted = {"tokens": prompt + generated, "cost": self.prices.cost(prompt, generated)}
            limits = {"tokens": self.prices.budget_tokens, "cost": self.prices.budget}
            now = _totals(self._usage)
            for name, limit in limits.items():
                used = self._before[name] + now[name]
                if limit is not None and used + self._held[name] + wanted[name] > limit:
                    raise self._reached(name, limit, used, wanted[name], len(requests))
            for name, value in wanted.items():
                self._held[name] += value

    def afford(self, requests: Sequence[Tokens]) -> None:
        """Raises BudgetReached where the worst case of these requests cannot be set aside; nothing is."""
        self.hold(requests)
        for each in requests:
            self.free(each)

    def free(self, request: Tokens) -> None:
        """A request that was set aside is not sent, or was refused: nothing is charged for it."""
        with self._lock:
            self._release(request)

    def lose(self, request: Tokens) -> None:
        """A request was sent and never answered: its worst case counts as spent."""
        with self._lock:
            self._release(request)
            self._add(UNCONFIRMED + "tokens", request.prompt + request.generated)
            if cost := self.prices.cost(request.prompt, request.generated):
                self._add(UNCONFIRMED + "cost", cost)

    def pay(self, request: Tokens, told: object) -> None:
        """A request was answered. ``told``: the ``usage`` of its reply; without one the worst case is taken."""
        with self._lock:
            prompt, generated = request.prompt, request.generated
            self._release(request)
            if isinstance(told, dict):
                prompt = _number(told.get("prompt_tokens"), prompt)
                generated = _number(told.get("completion_tokens"), generated)
            self._add("requests", 1)
            self._add("prompt_tokens", prompt)
            self._add("generated_tokens", generated)
            if cost := self.prices.cost(prompt, generated):
                self._add("cost", cost)
            self._layout = max(self._layout, -(-(prompt - request.size) // (request.messages + 1)))

    def _release(self, request: Tokens) -> None:
        self._held["tokens"] -= request.prompt + request.generated
        self._held["cost"] -= self.prices.cost(request.prompt, request.generated)
        if not self._held["tokens"]:
            self._held["cost"] = 0.0  # without what rounding left

    def _add(self, name: str, by: float) -> None:
        self._usage[name] = self._usage.get(name, 0) + by

    def _reached(self, name: str, limit: float, used: float, wanted: float, requests: int) -> BudgetReached:
        unit, option = (" tokens", "budget_tokens") if name == "tokens" else ("", "budget")
        what = (
            f"the budget of {limit:g}{unit} would not be kept: {used:.6g} is spent, and the next {requests} requests "
            f"may take up to {wanted:.6g}"
        )
        fix = f"every score of the batches before is kept; raise {option} in the teacher's card and run again"
        return BudgetReached(what, where=self._where, fix=fix)


def _totals(usage: Mapping[str, float]) -> dict[str, float]:
    tokens = usage.get("prompt_tokens", 0) + usage.get("generated_tokens", 0) + usage.get(UNCONFIRMED + "tokens", 0)
    return {"tokens": tokens, "cost": usage.get("cost", 0) + usage.get(UNCONFIRMED + "cost", 0)}


def _number(value: object, otherwise: int) -> int:
    return value if isinstance(value, int) and value >= 0 else otherwise
