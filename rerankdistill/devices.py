"""The one place that decides where and in which precision a model runs. torch is imported inside."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, TypeVar

from rerankdistill.errors import MissingDependency

Dtype = Literal["auto", "float32", "bfloat16", "float16"]
Part = TypeVar("Part")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Device:
    """Where to compute: torch's name of the device, and the dtype of the matrix products."""

    name: str
    dtype: str

    def autocast(self) -> AbstractContextManager[Any]:
        """A context in which matrix products run in :attr:`dtype` and everything else in float32."""
        if self.dtype == "float32":
            return nullcontext()
        import torch

        kind: AbstractContextManager[Any] = torch.autocast(self.name.split(":")[0], getattr(torch, self.dtype))
        return kind


def choose(device: str = "auto", dtype: Dtype = "auto") -> Device:
    """Decide device and dtype.

    ``auto`` takes a CUDA device where there is one, else the CPU; bfloat16 where the hardware multiplies it fast.

    Raises:
        MissingDependency: a CUDA device was asked for and there is none.
    """
    import torch

    if device == "auto":
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise MissingDependency("no CUDA device on this machine", where=f"device {device!r}", fix="use device = 'cpu'")
    chosen: str = dtype
    if dtype == "auto":
        chosen = "bfloat16" if fast_bfloat16(device) else "float32"
    return Device(device, chosen)


def threads() -> int:
    """With how many threads torch computes in this one."""
    import torch

    return torch.get_num_threads()


def take_threads(count: int) -> None:
    """Let torch compute with so many threads when it is called in this one; 0: as before."""
    import torch

    if count:
        torch.set_num_threads(count)


@lru_cache
def leader() -> ThreadPoolExecutor:
    """The one thread of a server that calls torch with several cores. Those that wait for each other's part of a matrix
    are quickest if they do not fall asleep, and GNU's OpenMP has them stay awake only while no more threads than cores
    were ever started: a second caller would bring its own."""
    return ThreadPoolExecutor(1, "all-cores")


@contextmanager
def one_core_each(workers: int, name: str) -> Iterator[ThreadPoolExecutor]:
    """Threads in which torch has one core each. What has not begun at the end is left undone."""
    before = threads()
    pool = ThreadPoolExecutor(workers, name, initializer=take_threads, initargs=(1,))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
        take_threads(before)  # some libraries count threads for all of them together


def apart(work: Callable[[], Result]) -> Result:
    """``work`` in a thread of its own with one core, so that torch starts no others for it."""
    with one_core_each(1, "apart") as pool:
        return pool.submit(work).result()


def side_by_side(
    compute: Callable[[Part], Result], parts: Sequence[Part], workers: int
) -> Generator[Result, None, None]:
    """``compute`` of each part, in their order: in so many threads, each of which has one core. Close it to leave what
    nobody waits for undone."""
    if workers == 1 or len(parts) == 1:
        yield from map(compute, parts)
        return
    with one_core_each(min(workers, len(parts)), "core") as pool:
        yield from pool.map(compute, parts)


@lru_cache
def fast_bfloat16(device: str) -> bool:
    """Whether the device has bfloat16 matrix units (AVX512-BF16 or AMX on a CPU, compute capability 8 on a GPU)."""
    import torch

    if device.startswith("cuda"):
        return bool(torch.cuda.is_bf16_supported())
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="ignore") as file:  # noqa: PTH123
            flags = next((line for line in file if line.startswith("flags")), "")
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def rank() -> int:
    """Which process of a ``torchrun`` this is; 0 where there is one alone."""
    return int(os.environ.get("RANK", "0"))


def world() -> int:
    """How many processes a ``torchrun`` started; 1 where there is none."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def cores() -> int:
    """The cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
