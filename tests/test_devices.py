"""Where and in which precision: one place decides, and says so when it cannot."""

from __future__ import annotations

import threading
import time
from contextlib import closing

import pytest

from rerankdistill import devices
from rerankdistill.errors import MissingDependency


@pytest.fixture
def no_gpu(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def test_a_gpu_that_is_not_there_is_said_not_silently_replaced(no_gpu):
    for name in ("cuda", "cuda:1"):
        with pytest.raises(MissingDependency, match="no CUDA device") as caught:
            devices.choose(name)
        assert "cpu" in caught.value.fix


def test_auto_takes_the_processor_where_there_is_no_gpu(no_gpu):
    assert devices.choose("auto", "float32") == devices.Device("cpu", "float32")
    assert devices.choose("auto").dtype in ("float32", "bfloat16")


def test_what_is_asked_for_is_not_overruled():
    assert devices.choose("cpu", "bfloat16").dtype == "bfloat16"
    assert devices.choose("cpu", "float32").dtype == "float32"


def test_lower_precision_is_for_matrix_products_alone():
    import torch

    a = torch.randn(4, 4)
    with devices.Device("cpu", "bfloat16").autocast():
        assert (a @ a).dtype is torch.bfloat16
        assert a.softmax(-1).dtype is torch.float32
    with devices.Device("cpu", "float32").autocast():
        assert (a @ a).dtype is torch.float32


@pytest.mark.gpu
def test_auto_takes_the_gpu_where_there_is_one():
    import torch

    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    assert devices.choose().name.startswith("cuda")


def test_a_process_has_at_least_one_core():
    assert devices.cores() >= 1


def test_parts_come_back_in_their_order_from_threads_of_one_core_each():
    seen = set()

    def compute(part):
        seen.add((threading.current_thread().name, devices.threads()))
        time.sleep(0.01 * (5 - part))
        return part * part

    before = devices.threads()
    assert list(devices.side_by_side(compute, range(5), 3)) == [0, 1, 4, 9, 16]
    assert len(seen) == 3
    assert {count for _, count in seen} == {1}
    assert devices.threads() == before


def test_one_worker_or_one_part_needs_no_thread():
    for parts, workers in ((range(3), 1), (range(1), 3)):
        names = devices.side_by_side(lambda _: threading.current_thread().name, parts, workers)
        assert set(names) == {threading.current_thread().name}


def test_what_nobody_waits_for_is_left_undone():
    done = []

    def compute(part):
        time.sleep(0.02)
        done.append(part)
        return part

    with closing(devices.side_by_side(compute, range(100), 2)) as results:
        assert next(results) == 0
    assert len(done) < 50

    def fail(part):
        raise ValueError(part)

    with pytest.raises(ValueError, match="0"):
        list(devices.side_by_side(fail, range(3), 2))
