"""Costs are measured side by side, with a clock that the test holds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from rerankdistill.contracts import Role
from rerankdistill.errors import UsageError
from rerankdistill.evaluation.cost import folder_bytes, latency, parameters, throughput
from rerankdistill.types import FloatArray


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Fake:
    """An encoder that takes ``cost`` seconds a text; ``drift`` is shared by everything on the machine."""

    dimension, fingerprint = 1, "fake"

    def __init__(self, clock: Clock, cost: float, log: list[float], drift: list[float]) -> None:
        self.clock, self.cost, self.log, self.drift = clock, cost, log, drift

    def encode(self, texts: Sequence[str], role: Role) -> FloatArray:
        assert role == "doc"
        self.clock.now += self.cost * len(texts) * self.drift[0]
        self.drift[0] *= 1.05
        self.log.append(self.cost)
        return np.zeros((len(texts), 1), np.float32)


def test_latency_leaves_the_warm_up_out_and_times_every_query() -> None:
    clock, seen = Clock(), []

    def answer(query: float) -> None:
        seen.append(query)
        clock.now += query if len(seen) > 3 else 100.0

    found = latency(answer, [0.001, 0.002, 0.003], warmup=3, repeats=2, clock=clock)
    assert found.p50 == pytest.approx(2.0)
    assert found.p95 == pytest.approx(3.0)
    assert (found.calls, len(seen)) == (6, 9)


def test_throughput_is_interleaved_so_that_a_slowing_machine_favours_nobody() -> None:
    clock, log, drift = Clock(), [], [1.0]
    fast, slow = Fake(clock, 0.001, log, drift), Fake(clock, 0.004, log, drift)
    found = throughput(fast, slow, ["text"] * 8, rounds=4, clock=clock)
    assert log[2:] == [0.001, 0.004, 0.004, 0.001] * 2
    assert found.ratio == pytest.approx(4.0, rel=0.01)
    assert found.a / found.b == pytest.approx(4.0, rel=0.1)
    assert (len(found.ratios), found.texts) == (4, 8)


def test_nothing_to_time_is_refused() -> None:
    with pytest.raises(UsageError):
        latency(print, [])
    with pytest.raises(UsageError):
        throughput(None, None, [])  # type: ignore[arg-type]


def test_parameters_and_bytes(tmp_path: Path) -> None:
    import torch

    layer = torch.nn.Linear(3, 2)
    assert parameters(layer) == 8
    tied = torch.nn.Sequential(layer, layer)
    assert parameters(tied) == 8, "a shared weight counts once"
    (tmp_path / "inner").mkdir()
    (tmp_path / "a").write_bytes(b"12345")
    (tmp_path / "inner" / "b").write_bytes(b"123")
    assert folder_bytes(tmp_path) == 8
