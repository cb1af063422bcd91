"""Arithmetic of single lists of scores: rank correlations, softmax, a list beside chance. NaN: not scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]


def standard(row: Values) -> Values:
    """A list in units of its own deviation; zeros where it differs by no more than float32 can tell."""
    std = float(row.std())
    if std <= np.finfo(np.float32).eps * float(np.abs(row).max(initial=0.0)):
        return np.zeros_like(row)
    found: Values = (row - row.mean()) / std
    return found


def log_softmax(row: Values) -> Values:
    """``[n]`` natural logarithms of softmax."""
    shifted = row - row.max()
    found: Values = shifted - np.log(np.exp(shifted).sum())
    return found


def highest_probability(rows: Sequence[Values], tau: float) -> Values:
    """For each list the largest probability of softmax(list / tau)."""
    return np.array([1.0 / np.exp((row - row.max()) / tau).sum() for row in rows])


def mild_temperature(rows: Sequence[Values]) -> float | None:
    """The temperature at which the mean largest probability is one half, to two digits; None where there is none."""
    long = [row for row in rows if len(row) > 2]
    if not long:
        return None
    low, high = -6.0, 6.0  # of the logarithm to base 10; the mean falls as the temperature grows
    for _ in range(24):
        middle = (low + high) / 2
        if highest_probability(long, 10.0**middle).mean() > 0.5:
            low = middle
        else:
            high = middle
    return float(f"{10.0**high:.2g}") if high < 6.0 else None


def kendall(one: Values, other: Values) -> float | None:
    """Kendall's tau-b of two lists over what both scored; None where one of them has no order.

    Kendall, "The treatment of ties in ranking problems", Biometrika 33, 1945.
    """
    a, b = _signs(one, other)
    weight = float(np.sqrt(np.count_nonzero(a) * float(np.count_nonzero(b))))
    return float((a * b).sum(dtype=np.int64)) / weight if weight else None


def signs_over_chance(one: Values, other: Values) -> float | None:
    """Kendall's S of two lists, in standard deviations of what shuffling one of them gives (ties in both counted).

    None where it cannot differ from chance. The variance is Kendall's ("Rank Correlation Methods", 1970, chapter 4).
    """
    known = ~(np.isnan(one) | np.isnan(other))
    n = int(known.sum())
    if n < 3:
        return None
    a, b = _signs(one, other)
    t, u = (np.unique(row[known], return_counts=True)[1].astype(np.float64) for row in (one, other))

    def whole(sizes: Values) -> float:
        return float((sizes * (sizes - 1) * (2 * sizes + 5)).sum())

    def pairs(sizes: Values) -> float:
        return float((sizes * (sizes - 1)).sum())

    def triples(sizes: Values) -> float:
        return float((sizes * (sizes - 1) * (sizes - 2)).sum())

    variance = (n * (n - 1) * (2 * n + 5) - whole(t) - whole(u)) / 18
    variance += triples(t) * triples(u) / (9 * n * (n - 1) * (n - 2)) + pairs(t) * pairs(u) / (2 * n * (n - 1))
    if variance <= 1e-9:
        return None
    return float((a * b).sum(dtype=np.int64)) / 2 / float(np.sqrt(variance))


def spearman(one: Values, other: Values) -> float | None:
    """Spearman's rank correlation over what both scored, ties at their average rank; None where one has no order."""
    known = ~(np.isnan(one) | np.isnan(other))
    a, b = _ranks(one[known]), _ranks(other[known])
    if len(a) < 2 or not a.std() or not b.std():
        return None
    return float(np.clip(((a - a.mean()) * (b - b.mean())).mean() / (a.std() * b.std()), -1.0, 1.0))


def agreement(one: Mapping[str, Values], other: Mapping[str, Values]) -> Values:
    """Kendall's tau-b of every query that both order."""
    found = (kendall(one[query_id], other[query_id]) for query_id in one if query_id in other)
    return np.array([tau for tau in found if tau is not None], np.float64)


def _signs(one: Values, other: Values) -> tuple[NDArray[np.int8], NDArray[np.int8]]:
    """For every pair of documents that both lists scored, which of the two is above: 1, -1, or 0 for a tie."""
    known = ~(np.isnan(one) | np.isnan(other))
    a, b = one[known], other[known]
    return np.sign(a[:, None] - a[None, :]).astype(np.int8), np.sign(b[:, None] - b[None, :]).astype(np.int8)


def _ranks(row: Values) -> Values:
    _, inverse, counts = np.unique(row, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    found: Values = (ends - (counts - 1) / 2)[inverse.reshape(-1)]
    return found
