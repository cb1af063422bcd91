"""Re-ranking in a time budget: the best candidates first, in growing batches, until all are read or time is up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

FIRST = 4
"""Pairs of the first batch; each one after it is as large as all before together."""
MEMORY = 0.7
"""What the pace of the batches before counts for in the pace that is expected."""

Score = Callable[[Sequence[str]], Awaitable[Sequence[float]]]
"""Texts to their scores for a query that is known already."""


@dataclass
class Pace:
    """Seconds a pair, as it was lately; 0 before anything was read. Kept from one request to the next."""

    seconds: float = 0.0

    def learn(self, pairs: int, spent: float) -> None:
        now = spent / pairs
        self.seconds = MEMORY * self.seconds + (1 - MEMORY) * now if self.seconds else now


@dataclass
class Reranked:
    """``scores`` of the first so many candidates; ``stopped``: time ran out before all were read."""

    scores: list[float] = field(default_factory=list)
    stopped: bool = False


async def within(
    texts: Sequence[str], score: Score, budget: float, pace: Pace, clock: Callable[[], float] = time.perf_counter
) -> Reranked:
    """Score candidates in their order for at most ``budget`` seconds.

    A batch that is not expected to end in time is made smaller, or not begun, but for the first candidate: a pace that
    was once too slow must be able to mend. A batch that takes longer than the whole budget is given up, and its
    candidates count as not read.
    """
    began, found = clock(), Reranked()
    while len(found.scores) < len(texts):
        done, left = len(found.scores), budget - (clock() - began)
        size = min(max(FIRST, done), len(texts) - done)
        if pace.seconds:
            size = min(size, max(int(left / pace.seconds), int(done == 0)))
        if size < 1 or left <= 0:
            found.stopped = True
            break
        start = clock()
        try:
            async with asyncio.timeout(left):
                found.scores += await score(texts[done : done + size])
        except TimeoutError:
            pace.learn(size, left)  # it is slower than was thought
            found.stopped = True
            break
        pace.learn(size, clock() - start)
    return found


def reordered(count: int, scores: Sequence[float]) -> list[int]:
    """The places of ``count`` candidates: those that have scores by them, equal ones as they came, then the others."""
    read = sorted(range(len(scores)), key=lambda at: (-scores[at], at))
    return [*read, *range(len(scores), count)]
