"""Texts of many requests meet in one batch.

Whatever waits when the model is free goes in, up to a number of tokens: nobody waits for a timer, and the more clients
ask the larger the batches grow. Each request gets an equal share of a batch, so that one with a thousand documents
does not keep a single query waiting; its rows go longest first, next to others about as long.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rerankdistill.encoding import Tokens
from rerankdistill.types import FloatArray

Network = Callable[[Tokens], FloatArray]
"""A model without its tokenizer: for ``n`` tokenised texts, of whatever lengths, ``[n, …]`` float32. It is called in
a thread of its own and may pad, sort and chunk as it likes."""

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


class Batcher:
    """Runs networks on batches of waiting texts, in ``lanes`` threads, each with the next batch.

    Args:
        batch_tokens: of one batch; a longer text gets one of its own.
        max_queue: texts that may wait; a request that comes while others wait and does not fit is refused.
    """

    def __init__(self, batch_tokens: int, max_queue: int, lanes: int = 1) -> None:
        self.batch_tokens, self.max_queue = batch_tokens, max_queue
        self.waiting = 0
        """Texts that no thread has taken yet."""
        self.tokens_a_second = 0.0
        """A moving mean; 0 before the first batch."""
        self.on_batch: Callable[[int, int, float], None] | None = None
        """Is told of each batch: texts, tokens, seconds."""
        self._jobs: list[Job] = []
        self._free, self._expected, self._timer = lanes, 0, False
        self._pool = ThreadPoolExecutor(lanes, "model")

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
        tokens = sum(len(job.tokens.columns["input_ids"][row]) for job in self._jobs for row in job.rows)
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
        """Give free threads work. The clients that the last batch answered ask again within a moment: a batch without
        them would be a small one, and the next as well."""
        if not self._jobs or not self._free or self._timer:
            return
        if len(self._jobs) < self._expected:
            self._timer = True
            asyncio.get_running_loop().call_later(self._linger, self._after_linger)
            self._expected = 0
            return
        while self._free and self._jobs:
            self._start()

    def _after_linger(self) -> None:
        self._timer = False
        self._look()

    _linger = 0.0

    def _start(self) -> None:
        parts = self._take()
        tokens = merge([(job.tokens, row) for job, row in parts])
        self._free -= 1
        network, began = parts[0][0].network, time.perf_counter()
        asyncio.get_running_loop().run_in_executor(self._pool, network, tokens).add_done_callback(
            lambda done: self._finish(parts, tokens, time.perf_counter() - began, done)
        )

    def _take(self) -> list[tuple[Job, int]]:
        """Rows for one batch: in turn the longest of each job that wants the same network as the oldest."""
        network, left = self._jobs[0].network, self.batch_tokens
        turn = [job for job in self._jobs if job.network is network]
        taken = [(turn[0], turn[0].rows.pop())]  # even one that is longer than a batch
        left -= len(turn[0].tokens.columns["input_ids"][taken[0][1]])
        turn.append(turn.pop(0))
        while turn:
            turn = [job for job in turn if job.rows and len(job.tokens.columns["input_ids"][job.rows[-1]]) <= left]
            for job in turn:
                size = len(job.tokens.columns["input_ids"][job.rows[-1]])
                if size > left:
                    break
                taken.append((job, job.rows.pop()))
                left -= size
        self.waiting -= len(taken)
        self._jobs = [job for job in self._jobs if job.rows]
        return taken

    def _finish(self, parts: Sequence[tuple[Job, int]], tokens: Tokens, seconds: float, done: Any) -> None:
        self._free += 1
        jobs = {id(job): job for job, _ in parts}.values()
        count = sum(tokens.lengths)
        if done.cancelled() or done.exception():
            error = RuntimeError("the server stops") if done.cancelled() else done.exception()
            for job in jobs:
                self._drop(job)
                if not job.answer.done():
                    job.answer.set_exception(error)
        else:
            deliver(parts, done.result())
            speed = count / max(seconds, 1e-6)
            self.tokens_a_second = 0.8 * self.tokens_a_second + 0.2 * speed if self.tokens_a_second else speed
            if self.on_batch:
                self.on_batch(len(parts), count, seconds)
        answered = sum(job.missing == 0 for job in jobs)
        self._expected = answered + len(self._jobs) if answered > 1 else 0
        self._linger = min(0.1 * seconds, LINGER)
        self._look()


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
