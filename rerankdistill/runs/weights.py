"""How much each of several runs counts beside the others, learnt from what a fusion gains by it."""

from __future__ import annotations

from collections.abc import Callable

WEIGHTS = (1.0, 0.0, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.5, 2.5, 5.0)
"""What is tried; of equal results the first is taken. 0 is allowed, and says that a run knows nothing of its own."""
ROUNDS = 4

Weights = tuple[float, ...]


def learn_weights(count: int, gain: Callable[[Weights], float]) -> Weights:
    """``[count]`` weights by coordinate ascent: one run's after the other, the rest as they stand, until a whole round
    changes none. The first run's is 1, as only proportions matter.

    Args:
        gain: what a fusion with these weights is worth, as nDCG@10 over judged queries; the more the better.
    """
    known: dict[Weights, float] = {}

    def worth(weights: Weights) -> float:
        if weights not in known:
            known[weights] = gain(weights)
        return known[weights]

    best = (1.0,) * count
    for _ in range(ROUNDS):
        before = best
        for at in range(1, count):
            tried = [(*best[:at], weight, *best[at + 1 :]) for weight in WEIGHTS]
            best = max([best, *tried], key=worth)
        if best == before:
            break
    return best
