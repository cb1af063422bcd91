"""What a ranker costs: time per query, encoding speed side by side, parameters, bytes on disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, TypeVar

import numpy as np

from rerankdistill.contracts import Encoder
from rerankdistill.errors import UsageError

Asked = TypeVar("Asked")


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds per query, one query at a time: median and 95th percentile over every timed call."""

    p50: float
    p95: float
    calls: int


@dataclass(frozen=True, slots=True)
class Throughput:
    """Encoding speed of ``a`` and ``b`` in texts per second (medians over the rounds), and how much faster ``a`` is.

    ``ratio`` is the median of the rounds' own ratios: the two are timed next to each other in every round, so that a
    machine which slows down half-way slows down both.
    """

    a: float
    b: float
    ratio: float
    ratios: tuple[float, ...]
    texts: int


def latency(
    answer: Callable[[Asked], object],
    queries: Sequence[Asked],
    *,
    warmup: int = 5,
    repeats: int = 3,
    clock: Callable[[], float] = perf_counter,
) -> Latency:
    """Time ``answer(query)`` for each query in turn, ``repeats`` times over, after ``warmup`` untimed calls.

    Raises UsageError without queries or repeats.
    """
    if not queries or repeats < 1:
        raise UsageError("latency needs at least one query and one repeat")
    for number in range(warmup):
        answer(queries[number % len(queries)])
    spent = []
    for _ in range(repeats):
        for query in queries:
            start = clock()
            answer(query)
            spent.append((clock() - start) * 1000.0)
    p50, p95 = np.percentile(spent, [50, 95])
    return Latency(float(p50), float(p95), len(spent))


def throughput(
    encoder_a: Encoder,
    encoder_b: Encoder,
    texts: Sequence[str],
    *,
    rounds: int = 5,
    clock: Callable[[], float] = perf_counter,
) -> Throughput:
    """Encode the same texts as documents with both, in turn, each going first every other round.

    Raises UsageError without texts or rounds.
    """
    if not texts or rounds < 1:
        raise UsageError("throughput needs at least one text and one round")
    encoders = (encoder_a, encoder_b)
    for encoder in encoders:
        encoder.encode(texts[: max(1, len(texts) // 4)], "doc")
    speeds = np.zeros((rounds, 2))
    for number in range(rounds):
        for side in (0, 1) if number % 2 == 0 else (1, 0):
            start = clock()
            encoders[side].encode(texts, "doc")
            speeds[number, side] = len(texts) / max(clock() - start, 1e-9)
    ratios = speeds[:, 0] / speeds[:, 1]
    a, b = np.median(speeds, axis=0)
    return Throughput(float(a), float(b), float(np.median(ratios)), tuple(ratios.tolist()), len(texts))


def parameters(model: Any) -> int:
    """How many numbers a torch module holds; a tensor that two layers share counts once."""
    return sum(int(tensor.numel()) for tensor in model.parameters())


def folder_bytes(folder: Path) -> int:
    """Bytes of the files under a folder: what an index or a model takes on disk."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
