"""Is the difference between two systems more than luck? Paired tests over the queries, corrected for asking often.

Two tests of the same null hypothesis are reported side by side: Student's paired t-test, and Fisher's paired
randomisation (every query's difference may flip its sign), which assumes no distribution. Smucker, Allan and
Carterette, "A comparison of statistical significance tests for information retrieval evaluation", CIKM 2007.
Holm, "A simple sequentially rejective multiple test procedure", Scand. J. Statistics 6, 1979.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rerankdistill.errors import DataError, UsageError
from rerankdistill.types import Row

Floats = NDArray[np.float64]

ROUNDS = 10_000
CELLS = 4_000_000
"""Signs drawn at a time, so that many queries do not fill the memory."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One system against its baseline on one measure.

    Attributes:
        difference: mean of system - baseline over the queries; ``low`` and ``high`` bound it with 95 % confidence
            (Student's t; None for a single query).
        p, p_randomisation: two-sided, uncorrected; 1 for identical systems, never NaN.
        p_corrected, p_randomisation_corrected: Holm over the family: every pair compared on this measure in one call.
        wins, ties, losses: queries on which the system is better, equal (within 1e-9), worse.
        seeds, seed_std: trainings of the system that were averaged query by query, and the standard deviation of their
            means (None for one); ``baseline_*`` likewise.
    """

    system: str
    baseline: str
    measure: str
    queries: int
    system_mean: float
    baseline_mean: float
    difference: float
    low: float | None
    high: float | None
    p: float
    p_randomisation: float
    wins: int
    ties: int
    losses: int
    p_corrected: float = 1.0
    p_randomisation_corrected: float = 1.0
    seeds: int = 1
    seed_std: float | None = None
    baseline_seeds: int = 1
    baseline_seed_std: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """For ``Report.comparisons``."""
        return asdict(self)


def compare(
    rows: Sequence[Row],
    pairs: Sequence[tuple[str, str]],
    measures: Sequence[str] = ("ndcg@10",),
    *,
    rounds: int = ROUNDS,
    seed: int = 0,
) -> tuple[Comparison, ...]:
    """Compare rows of a report by name, ``pairs`` being (system, baseline).

    Rows of one name are trainings of one system with several seeds: their values are averaged query by query first.

    Raises:
        UsageError: no row of that name.
        DataError: a row without per-query values of a measure, or two rows measured on different queries.
    """
    out: list[Comparison] = []
    for measure in measures:
        family = []
        for system, baseline in pairs:
            a, b = _seeds_of(rows, system, measure), _seeds_of(rows, baseline, measure)
            found = compare_two(average(a), average(b), rounds=rounds, seed=seed)
            named = replace(
                found, system=system, baseline=baseline, measure=measure, seeds=len(a), baseline_seeds=len(b)
            )
            family.append(replace(named, seed_std=spread(a), baseline_seed_std=spread(b)))
        exact, drawn = holm([c.p for c in family]), holm([c.p_randomisation for c in family])
        for found, p, q in zip(family, exact, drawn, strict=True):
            out.append(replace(found, p_corrected=p, p_randomisation_corrected=q))
    return tuple(out)


def compare_two(
    system: Mapping[str, float], baseline: Mapping[str, float], *, rounds: int = ROUNDS, seed: int = 0
) -> Comparison:
    """Compare two ``{query_id: value}``; the corrected p are the plain ones. Raises DataError for other queries."""
    if not system or system.keys() != baseline.keys():
        odd = sorted(system.keys() ^ baseline.keys())[:3]
        raise DataError(
            f"the two systems were not measured on the same queries (e.g. {', '.join(odd) or 'none at all'})",
            fix="measure both against the same judgements",
        )
    a = np.array(list(system.values()), np.float64)
    b = np.array([baseline[query_id] for query_id in system], np.float64)
    delta = a - b
    delta[np.abs(delta) <= 1e-9] = 0.0
    low, high = interval(delta)
    p, drawn = t_test(delta), randomisation_test(delta, rounds=rounds, seed=seed)
    wins, losses = int((delta > 0).sum()), int((delta < 0).sum())
    return Comparison(
        system="",
        baseline="",
        measure="",
        queries=len(delta),
        system_mean=float(a.mean()),
        baseline_mean=float(b.mean()),
        difference=float(delta.mean()),
        low=low,
        high=high,
        p=p,
        p_randomisation=drawn,
        wins=wins,
        ties=len(delta) - wins - losses,
        losses=losses,
        p_corrected=p,
        p_randomisation_corrected=drawn,
    )


def t_test(delta: Floats) -> float:
    """Two-sided p of Student's paired t-test on the differences ``[q]``."""
    if len(delta) < 2 or not delta.any():
        return 1.0
    error = delta.std(ddof=1) / np.sqrt(len(delta))
    if error <= 1e-12 * abs(delta.mean()):
        return 0.0  # the same difference on every query
    from scipy.special import stdtr

    return float(2 * stdtr(len(delta) - 1, -abs(delta.mean() / error)))


def interval(delta: Floats, confidence: float = 0.95) -> tuple[float | None, float | None]:
    """Student's confidence interval of the mean of ``[q]`` values; (None, None) for fewer than two."""
    if len(delta) < 2:
        return None, None
    from scipy.special import stdtrit

    half = stdtrit(len(delta) - 1, (1 + confidence) / 2) * delta.std(ddof=1) / np.sqrt(len(delta))
    return float(delta.mean() - half), float(delta.mean() + half)


def randomisation_test(delta: Floats, *, rounds: int = ROUNDS, seed: int = 0) -> float:
    """Two-sided p of Fisher's paired randomisation test on the differences ``[q]``.

    Exact (every assignment of signs) where there are no more of them than ``rounds``; else (hits + 1) / (rounds + 1)
    over seeded draws, so that p is never 0.
    """
    delta = delta[delta != 0.0]  # flipping the sign of nothing changes nothing
    size = len(delta)
    if size == 0:
        return 1.0
    seen = abs(delta.sum()) - 1e-12 * np.abs(delta).sum()
    if size < 31 and 2**size <= rounds:
        bits = (np.arange(2**size)[:, None] >> np.arange(size)) & 1
        return float(np.mean(np.abs((2.0 * bits - 1.0) @ delta) >= seen))
    generator, hits, left = np.random.default_rng(seed), 0, rounds
    while left:
        chunk = min(left, max(1, CELLS // size))
        flips = generator.integers(0, 2, (chunk, size), np.int8).astype(np.float64)
        hits += int((np.abs(2.0 * (flips @ delta) - delta.sum()) >= seen).sum())
        left -= chunk
    return (hits + 1) / (rounds + 1)


def holm(values: Sequence[float]) -> list[float]:
    """Holm's step-down correction of a family of p values, in the order given."""
    out, worst = [0.0] * len(values), 0.0
    for rank, at in enumerate(sorted(range(len(values)), key=lambda i: values[i])):
        worst = max(worst, min(1.0, values[at] * (len(values) - rank)))
        out[at] = worst
    return out


def average(seeds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """``{query_id: mean over the seeds}``. Raises DataError where they were measured on different queries."""
    if any(values.keys() != seeds[0].keys() for values in seeds):
        raise DataError("the seeds of one system were not measured on the same queries")
    return {query_id: float(np.mean([values[query_id] for values in seeds])) for query_id in seeds[0]}


def spread(seeds: Sequence[Mapping[str, float]]) -> float | None:
    """Standard deviation (n - 1) of the seeds' means, None for a single seed."""
    means = [np.mean(list(values.values())) for values in seeds]
    return float(np.std(means, ddof=1)) if len(means) > 1 else None


def average_rows(rows: Sequence[Row]) -> Row:
    """One row for several seeds of a system: means and per-query values averaged, and ``extra`` gets ``seeds`` and,
    by measure, ``seed_std`` (the spread of the seeds' means) and ``seed_means``. Raises UsageError without rows."""
    if not rows:
        raise UsageError("there is no row to average")
    first = rows[0]
    if len(rows) == 1:
        return first
    per_query = {m: average([row.per_query[m] for row in rows]) for m in first.per_query}
    means = {m: [float(row.measures[m]) for row in rows] for m in first.measures}
    timed = [row.latency_ms for row in rows if row.latency_ms is not None]
    return replace(
        first,
        measures={m: float(np.mean(values)) for m, values in means.items()},
        per_query=per_query,
        latency_ms=float(np.median(timed)) if timed else None,
        extra={
            **first.extra,
            "seeds": len(rows),
            "seed_std": {m: float(np.std(values, ddof=1)) for m, values in means.items()},
            "seed_means": means,
        },
    )


def _seeds_of(rows: Sequence[Row], name: str, measure: str) -> list[Mapping[str, float]]:
    found = [row for row in rows if row.name == name]
    if not found:
        raise UsageError(f"no row is called {name!r}", fix=f"one of: {', '.join(sorted({row.name for row in rows}))}")
    if any(measure not in row.per_query for row in found):
        raise DataError(f"{name!r} has no {measure} for each query", fix="measure it before comparing")
    return [row.per_query[measure] for row in found]
