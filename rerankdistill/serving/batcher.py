"""Texts of many requests meet in one batch.

Whatever waits when a core is free goes in, up to a number of tokens: nobody waits for a timer, and the more clients
ask the larger the batches grow. Each request gets an equal share of a batch, so that one with a thousand documents
does not keep a single query waiting; its rows go longest first, next to others about as long.

On a processor every core computes a batch of its own, which costs less than several cores at one: they wait for each
other after each matrix. A text that waits alone gets all of them.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from rerankdistill import devices
from rerankdistill.encoding import Tokens
from rerankdistill.types import FloatArray


class Network(Protocol):
    """A model without its tokenizer: for ``n`` tokenised texts, of whatever lengths, ``[n, …]`` float32. It is called
    in threads of its own, several at once, and may pad, sort and chunk as it likes."""

    def __call__(self, tokens: Tokens, threads: int = 0) -> FloatArray:
        """``threads``: of the processor that it may take; 0: as many as there are for this server."""


LINGER = 0.005
"""The longest wait, in seconds, for the clients of the batch before to ask again."""


class Busy(Exception):
    """The queue is full; ``seconds`` until it is worth to ask again."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        super().__init__(f"the queue is full for {seconds:.1f} s")


@dataclass(eq=False)
class Job:
    """The texts of one request on their way through the model."""

    network: Network
    tokens: Tokens
    answer: asyncio.Future[FloatArray]
    rows: list[int] = field(default_factory=list)
    """Those that wait, the longest last."""
    missing: int = 0
    """How many have no result yet."""
    out: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        lengths = self.tokens.lengths
        self.rows = sorted(range(len(lengths)), key=lengths.__getitem__)
        self.missing, self.out = len(lengths), [None] * len(lengths)

    def size(self, row: int) -> int:
        """Tokens of one of its texts."""
        return len(self.tokens.columns["input_ids"][row])


class Batcher:
    """Runs networks on batches of waiting texts.

    Args:
        batch_tokens: of one batch; a longer text gets one of its own.
        max_queue: texts that may wait; a request that comes while others wait and does not fit is refused.
        cores: that may compute at once; each takes a batch, or all one text that waits alone.
    """

    def __init__(self, batch_tokens: int, max_queue: int, cores: int = 1) -> None:
        self.batch_tokens, self.max_queue = batch_tokens, max_queue
        self.waiting = 0
        """Texts that no thread has taken yet."""
        self.tokens_a_second = 0.0
        """Of all cores, a moving mean; 0 before the first batch."""
        self.on_batch: Callable[[int, int, float], None] | None = None
        """Is told of each batch: texts, tokens, seconds."""
        self._jobs: list[Job] = []
        self._cores = self._free = cores
        self._expected = 0
        self._timer: asyncio.TimerHandle | None = None
        self._pool = ThreadPoolExecutor(cores, "model")

    async def run(self, network: Network, tokens: Tokens) -> FloatArray:
        """``[n, …]``: the network's rows for these texts. A cancelled call leaves the queue at once.

        Raises:
            Busy: too many texts wait already.
        """
        job = Job(network, tokens, asyncio.get_running_loop().create_future())
        if not job.rows:
            raise ValueError("no texts")
        if self.waiting and self.waiting + len(job.rows) > self.max_queue:
            raise Busy(self.wait())
        self._jobs.append(job)
        self.waiting += len(job.rows)
        self._look()
        try:
            return await job.answer
        finally:
            if job.rows:
                self._drop(job)

    def wait(self) -> float:
        """Seconds until what waits now will be done, by the speed so far."""
        tokens = sum(job.size(row) for job in self._jobs for row in job.rows)
        return tokens / self.tokens_a_second if self.tokens_a_second else 1.0

    def close(self) -> None:
        """Let go of the threads; what they work on is finished."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _drop(self, job: Job) -> None:
        self.waiting -= len(job.rows)
        job.rows = []
        if job in self._jobs:
            self._jobs.remove(job)

    def _look(self) -> None:
        """Give free cores work. The clients that the last batches answered ask again within a moment: a batch without
        them would be a small one, and the next as well."""
        if not self._jobs or not self._free:
            return
        if len(self._jobs) < self._expected:
            if self._timer is None:
                self._timer = asyncio.get_running_loop().call_later(self._linger, self._start)
            return
        self._start()

    _linger = 0.0

    def _start(self) -> None:
        """Share out what waits among the cores that are free."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._expected = 0
        while self._free and self._jobs:
            alone = self._free == self._cores and self.waiting == 1
            self._compute(self._take(self._free), self._cores if alone else 1)

    def _compute(self, parts: Sequence[tuple[Job, int]], cores: int) -> None:
        tokens = merge([(job.tokens, row) for job, row in parts])
        self._free -= cores
        network, began = parts[0][0].network, time.perf_counter()
        pool = devices.leader() if cores > 1 else self._pool
        asyncio.get_running_loop().run_in_executor(pool, network, tokens, cores).add_done_callback(
            lambda done: self._finish(parts, tokens, cores, time.perf_counter() - began, done)
        )

    def _take(self, shares: int) -> list[tuple[Job, int]]:
        """Rows for one batch, so large that there will be ``shares`` of them: in turn the longest of each job that
        wants the same network as the oldest."""
        network = self._jobs[0].network
        turn = [job for job in self._jobs if job.network is network]
        waits = sum(job.size(row) for job in turn for row in job.rows)
        left = min(self.batch_tokens, math.ceil(waits / shares))
        taken = [(turn[0], turn[0].rows.pop())]  # even one that is longer than a batch
        left -= turn[0].size(taken[0][1])
        turn.append(turn.pop(0))
        while turn:
            turn = [job for job in turn if job.rows and job.size(job.rows[-1]) <= left]
            for job in turn:
                size = job.size(job.rows[-1])
                if size > left:
                    break
                taken.append((job, job.rows.pop()))
                left -= size
        self.waiting -= len(taken)
        self._jobs = [job for job in self._jobs if job.rows]
        return taken

    def _finish(self, parts: Sequence[tuple[Job, int]], tokens: Tokens, cores: int, seconds: float, done: Any) -> None:
        self._free += cores
        jobs = {id(job): job for job, _ in parts}.values()
        if done.cancelled() or done.exception():
            error = RuntimeError("the server stops") if done.cancelled() else done.exception()
            for job in jobs:
                self._drop(job)
                if not job.answer.done():
                    job.answer.set_exception(error)
        else:
            deliver(parts, done.result())
            self._count(len(parts), sum(tokens.lengths), cores, seconds)
        answered = sum(job.missing == 0 for job in jobs)
        if answered > 1 or self._timer:
            self._expected = max(self._expected, len(self._jobs)) + answered
        self._linger = min(0.1 * seconds, LINGER)
        self._look()

    def _count(self, texts: int, tokens: int, cores: int, seconds: float) -> None:
        speed = tokens / max(seconds, 1e-6) * self._cores / cores
        self.tokens_a_second = 0.8 * self.tokens_a_second + 0.2 * speed if self.tokens_a_second else speed
        if self.on_batch:
            self.on_batch(texts, tokens, seconds)


def merge(parts: Sequence[tuple[Tokens, int]]) -> Tokens:
    """Rows of several tokenised texts as one."""
    first = parts[0][0]
    return Tokens({name: [tokens.columns[name][row] for tokens, row in parts] for name in first.columns}, first.pads)


def deliver(parts: Sequence[tuple[Job, int]], rows: FloatArray) -> None:
    """Hand each job its rows, and its answer once all are there."""
    for (job, row), value in zip(parts, rows, strict=True):
        job.out[row] = value
        job.missing -= 1
        if job.missing == 0 and not job.answer.done():
            job.answer.set_result(np.asarray(job.out, np.float32))
