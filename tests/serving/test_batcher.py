"""How waiting texts become batches, and which core computes which."""

from __future__ import annotations

import asyncio
import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rerankdistill.encoding import Tokens
from rerankdistill.serving.batcher import Batcher


class Network:
    """A text's row is its first token; remembers each batch as ``(its lengths, threads)`` and how many ran at once."""

    def __init__(self, seconds=0.0):
        self.seconds, self.batches = seconds, []
        self.now = self.most = 0
        self._lock = threading.Lock()

    def __call__(self, tokens, threads=0):
        with self._lock:
            self.now += threads
            self.most = max(self.most, self.now)
            self.batches.append((tokens.lengths, threads))
        time.sleep(self.seconds)
        with self._lock:
            self.now -= threads
        return np.asarray([row[0] for row in tokens.columns["input_ids"]], np.float32)[:, None]


def texts(*lengths, first=0):
    return Tokens({"input_ids": [[first + at] * length for at, length in enumerate(lengths)]}, {"input_ids": 0})


def answers(batcher, network, *requests):
    """What each of some requests that come together is told."""

    async def ask():
        return await asyncio.gather(*(batcher.run(network, tokens) for tokens in requests))

    try:
        return [found[:, 0].tolist() for found in asyncio.run(ask())]
    finally:
        batcher.close()


@pytest.mark.parametrize("length", [1, 30, 1000])
def test_a_text_that_waits_alone_gets_every_core(length):
    network = Network()
    assert answers(Batcher(100, 10, cores=4), network, texts(length)) == [[0.0]]
    assert network.batches == [([length], 4)]


def test_many_texts_of_one_request_are_shared_among_the_cores_each_with_one_thread():
    network = Network(0.05)
    assert answers(Batcher(1000, 100, cores=2), network, texts(*[5] * 10)) == [list(map(float, range(10)))]
    assert sorted(network.batches) == [([5] * 5, 1)] * 2
    assert network.most == 2


def test_shares_are_of_tokens_not_of_texts():
    network = Network(0.05)
    answers(Batcher(1000, 100, cores=2), network, texts(40, 10, 10, 10, 10))
    assert sorted(network.batches) == [([10] * 4, 1), ([40], 1)]


def test_what_comes_while_one_text_has_every_core_waits_for_them():
    network = Network(0.05)

    async def ask():
        batcher = Batcher(1000, 100, cores=2)
        first = asyncio.create_task(batcher.run(network, texts(8)))
        await asyncio.sleep(0.01)
        await asyncio.gather(first, batcher.run(network, texts(6)), batcher.run(network, texts(7)))
        batcher.close()

    asyncio.run(ask())
    assert network.batches[0] == ([8], 2)
    assert sorted(network.batches[1:]) == [([6], 1), ([7], 1)]
    assert network.most == 2


def test_a_core_that_is_free_takes_what_comes_while_another_computes():
    network = Network(0.1)

    async def ask():
        batcher = Batcher(1000, 100, cores=3)
        first = asyncio.create_task(batcher.run(network, texts(5, 5)))
        await asyncio.sleep(0.02)
        began = time.perf_counter()
        await asyncio.gather(first, batcher.run(network, texts(6)))
        batcher.close()
        return time.perf_counter() - began

    assert asyncio.run(ask()) < 0.19
    assert network.batches[-1] == ([6], 1)


def test_a_batch_that_fails_gives_its_cores_back():
    def broken(tokens, threads=0):
        raise ValueError("broken")

    async def ask():
        batcher = Batcher(1000, 100, cores=2)
        with pytest.raises(ValueError, match="broken"):
            await batcher.run(broken, texts(5, 5))
        await asyncio.sleep(0.1)  # the other core's share fails as well
        network = Network()
        await batcher.run(network, texts(8))
        batcher.close()
        return network.batches

    assert asyncio.run(ask()) == [([8], 2)]


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.lists(st.integers(1, 30), min_size=1, max_size=6), min_size=1, max_size=8),
    st.integers(1, 4),
    st.integers(1, 60),
)
def test_every_request_is_told_its_own_rows_whatever_waits(requests, cores, budget):
    network = Network()
    given_texts = [texts(*lengths, first=100 * at) for at, lengths in enumerate(requests)]
    found = answers(Batcher(budget, 1000, cores), network, *given_texts)
    assert found == [[float(100 * at + row) for row in range(len(each))] for at, each in enumerate(requests)]
    assert network.most <= cores
    assert all(len(lengths) == 1 or sum(lengths) <= budget for lengths, _ in network.batches)
    assert sum(len(lengths) for lengths, _ in network.batches) == sum(map(len, requests))
