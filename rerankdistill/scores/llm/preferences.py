"""Which of two documents is better: what pairs are asked about, in what order, and what follows for each document.

Qin et al., *Large Language Models are Effective Text Rankers with Pairwise Ranking Prompting* (PRP), arXiv 2306.17563;
Pradeep et al., *The Expando-Mono-Duo Design Pattern*, arXiv 2101.05667 (duoT5).

A strategy is a generator over the :class:`Preferences` of one list. It yields pairs that it wants to know, goes on when
they are there, and returns an order, best first, or None where the preferences themselves are the result. So the
sorting strategies of many lists move in step, and their questions are asked together.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rerankdistill.types import FloatArray

NEWTON_STEPS = 100
TOLERANCE = 1e-9

Pair = tuple[int, int]
Strategy = Generator[list[Pair], None, "list[int] | None"]


class Duel(NamedTuple):
    """A question: is document ``first`` of list ``row`` better than ``second``?"""

    row: int
    first: int
    second: int


class Preferences:
    """What is known of one list of ``n`` documents.

    Attributes:
        won: ``[n, n]`` P(i beats j); NaN where the two were not compared, or the model did not say.
        asked: ``[n, n]`` whether they were.
    """

    def __init__(self, count: int) -> None:
        self.won: FloatArray = np.full((count, count), np.nan, np.float32)
        self.asked: NDArray[np.bool_] = np.zeros((count, count), np.bool_)

    def __len__(self) -> int:
        return len(self.won)

    def put(self, i: int, j: int, probability: float) -> None:
        """P(i beats j), and with it P(j beats i)."""
        self.won[i, j], self.won[j, i] = probability, 1 - probability
        self.asked[i, j] = self.asked[j, i] = True

    def beats(self, i: int, j: int) -> bool:
        """Whether i goes before j; of equals, and without an answer, the one that is earlier in the list."""
        probability = self.won[i, j]
        return i < j if np.isnan(probability) or probability == 0.5 else bool(probability > 0.5)


def all_pairs(known: Preferences) -> Strategy:
    """Every two documents once: n (n - 1) / 2 pairs."""
    yield [(i, j) for i in range(len(known)) for j in range(i + 1, len(known))]
    return None


def sample(known: Preferences, opponents: int, places: Sequence[int]) -> Strategy:
    """Each document against ``opponents`` others (an even number): its neighbours on a ring of random ``places``.

    So each meets as many, and any two are linked over some others. All pairs where the list is short.
    """
    n = len(known)
    if n <= opponents + 1:
        return (yield from all_pairs(known))
    yield [(places[at], places[(at + far) % n]) for at in range(n) for far in range(1, opponents // 2 + 1)]
    return None


def heapsort(known: Preferences, top: int) -> Strategy:
    """The best ``top`` documents in order, then the others in that of the list; at most 2 n + 2 top log2 n pairs."""
    heap = list(range(len(known)))

    def sink(at: int) -> Generator[list[Pair], None, None]:
        while (child := 2 * at + 1) < len(heap):
            if child + 1 < len(heap):
                yield [(heap[child + 1], heap[child])]
                child += known.beats(heap[child + 1], heap[child])
            yield [(heap[child], heap[at])]
            if not known.beats(heap[child], heap[at]):
                return
            heap[at], heap[child] = heap[child], heap[at]
            at = child

    for at in reversed(range(len(heap) // 2)):
        yield from sink(at)
    best: list[int] = []
    while heap and len(best) < top:
        best.append(heap[0])
        last = heap.pop()
        if heap:
            heap[0] = last
            yield from sink(0)
    return [*best, *sorted(heap)]


def sliding(known: Preferences, passes: int) -> Strategy:
    """``passes`` of a bubble sort, from the back to the front: after each one more document is in its place. About
    n passes pairs; asking again what is known costs nothing."""
    order = list(range(len(known)))
    for done in range(min(passes, len(order) - 1)):
        for at in reversed(range(done, len(order) - 1)):
            yield [(order[at + 1], order[at])]
            if known.beats(order[at + 1], order[at]):
                order[at], order[at + 1] = order[at + 1], order[at]
    return order


def play(
    tables: Sequence[Preferences],
    strategies: Sequence[Strategy],
    ask: Callable[[list[Duel]], Sequence[float]],
) -> list[list[int] | None]:
    """Lead the strategies of many lists to their ends, in step; returns what each of them returned.

    Args:
        ask: for questions P(first beats second) each, NaN for no answer. No pair is asked about twice.
    """
    ends: list[list[int] | None] = [None] * len(tables)
    wanted: dict[int, list[Pair]] = {}

    def lead(row: int) -> None:
        """On to the next pairs that are not known yet, or to the end."""
        while True:
            try:
                pairs = next(strategies[row])
            except StopIteration as end:
                ends[row] = end.value
                return
            if unknown := [pair for pair in pairs if not tables[row].asked[pair]]:
                wanted[row] = unknown
                return

    for row in range(len(tables)):
        lead(row)
    while wanted:
        duels = [Duel(row, *pair) for row, pairs in wanted.items() for pair in pairs]
        wanted.clear()
        for duel, probability in zip(duels, ask(duels), strict=True):
            tables[duel.row].put(duel.first, duel.second, probability)
        for row in dict.fromkeys(duel.row for duel in duels):
            lead(row)
    return ends


def win_rates(won: FloatArray) -> FloatArray:
    """``[n]`` the mean probability with which each document beats those that it was compared with; NaN for one that was
    compared with none, 0.5 for a list of one. Over all pairs this is the expected number of wins by n - 1."""
    if len(won) == 1:
        return np.full(1, 0.5, np.float32)
    known = ~np.isnan(won)
    count = known.sum(1)
    total = np.where(known, won, 0).sum(1, dtype=np.float64)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan).astype(np.float32)


def bradley_terry(won: FloatArray, prior: float = 0.01) -> FloatArray:
    """``[n]`` strengths s for which P(i beats j) is best explained as sigmoid(s_i - s_j): logits.

    Maximises the sum over compared pairs of P(i beats j) log sigmoid(s_i - s_j), less ``prior`` / 2 times the sum of
    squared strengths, by Newton's method; with a prior above 0 there is always exactly one answer. Preferences alone
    determine strengths up to a constant; the prior sets their mean to 0, and keeps them finite where one wins always.
    Documents that no chain of comparisons links have strengths of mean 0 in each linked part: between parts they
    cannot be compared. NaN for a document that was compared with none (0 in a list of one).

    Bradley and Terry, *Rank Analysis of Incomplete Block Designs*, Biometrika 39 (1952).
    """
    known = ~np.isnan(won)
    # In float32 the two sides of a pair do not add up to exactly 1, and a small prior would turn the rest into a shift.
    share = np.where(known, (won.astype(np.float64) + 1 - won.T) / 2, 0)
    strength = np.zeros(len(won))
    best = _evidence(strength, share, prior)
    for _ in range(NEWTON_STEPS):
        expected = _sigmoid(strength[:, None] - strength[None, :])
        gradient = share.sum(1) - (known * expected).sum(1) - prior * strength
        weight = known * expected * (1 - expected)
        curvature = np.diag(weight.sum(1) + prior) - weight
        step = np.linalg.solve(curvature, gradient)
        if np.abs(step).max(initial=0) < TOLERANCE:
            break
        while (found := _evidence(strength + step, share, prior)) < best and np.abs(step).max() > TOLERANCE:
            step /= 2
        strength, best = strength + step, found
    answered = known.any(1) | (len(won) == 1)
    return np.where(answered, strength, np.nan).astype(np.float32)


def _sigmoid(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.exp(-np.logaddexp(0, -x))


def _evidence(strength: NDArray[np.float64], share: NDArray[np.float64], prior: float) -> float:
    likelihood = -(share * np.logaddexp(0, strength[None, :] - strength[:, None])).sum()
    return float(likelihood - prior / 2 * (strength**2).sum())
