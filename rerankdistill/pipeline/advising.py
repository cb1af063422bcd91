"""Which index for so many documents, so much memory and so much patience? Measured on a sample, not guessed.

Every card that could do is built of the same sample, searched with the same queries, and compared with ``flat``. What a
sample cannot say is extrapolated, and said to be so: bytes grow with the documents; so does a query's time, along the
line through half of the sample and all of it, and for the graph of ``hnsw`` with the logarithm of their number.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rerankdistill.errors import DataError, MissingDependency
from rerankdistill.index.build import IndexCard, build_index, open_index, read_card
from rerankdistill.kinds import open_kind
from rerankdistill.pipeline.step import Notes
from rerankdistill.types import FloatArray

CARDS = ("flat", "hnsw", "ivf", "int8", "sq8", "binary", "ivfpq", "ivf-disk", "flat-disk")
DEPTH, QUERIES = 10, 100
ID_BYTES = 100
"""What a doc_id of ordinary length takes in memory."""
GRAPHS = {"hnsw", "cagra"}
ENOUGH = 0.01
"""Recall that is no reason to prefer the slower of two."""


@dataclass(frozen=True)
class Wish:
    """What an index is to do.

    Attributes:
        documents: how many there will be.
        memory: bytes that the process may keep.
        latency: milliseconds a query may take, one at a time, without the encoder.
    """

    documents: int
    memory: float
    latency: float


@dataclass(frozen=True)
class Trial:
    """What a card reached: ``recall`` of flat's first ten on the sample, and what that makes for all documents.

    Attributes:
        build: seconds of the sample.
        disk, memory: bytes, extrapolated.
        sampled, latency: median milliseconds a query, of the sample and extrapolated.
    """

    card: str
    recall: float
    build: float
    disk: float
    memory: float
    sampled: float
    latency: float

    def misses(self, wish: Wish) -> str:
        """What it takes too much of; empty: nothing."""
        memory = "memory" if self.memory > wish.memory else ""
        return " and ".join(each for each in (memory, "time" if self.latency > wish.latency else "") if each)


def advise(wish: Wish, vectors: FloatArray, cards: Sequence[str], notes: Notes) -> tuple[list[Trial], Trial | None]:
    """Try cards on a sample.

    Args:
        vectors: ``[n, d]`` of real documents; the last of them are asked as queries, and not indexed.

    Returns:
        Every trial in the order of ``cards``, and the one to take: of those that keep within memory and time the one
        that finds most; among nearly equals the fastest. None: no card does.

    Raises:
        DataError: fewer than 500 vectors.
    """
    if len(vectors) < 500:
        raise DataError(
            f"a sample of {len(vectors)} vectors says little", fix="give 500 at least, better some thousand"
        )
    asked = min(QUERIES, len(vectors) // 10)
    docs, queries = np.asarray(vectors[:-asked], np.float32), np.asarray(vectors[-asked:], np.float32)
    order = np.argsort(-(queries @ docs.T), axis=1)[:, :DEPTH]
    truth = [{str(row) for row in rows} for rows in order.tolist()]
    trials = []
    with notes.bar("trying cards", len(cards)) as advance:
        for name in cards:
            try:
                trials.append(_try(name, wish, docs, queries, truth))
            except MissingDependency as error:
                notes.say(f"{name}: left out: {error.what}")
            advance(1)
    able = [each for each in trials if not each.misses(wish)]
    if not able:
        return trials, None
    best = max(each.recall for each in able)
    return trials, min((each for each in able if each.recall >= best - ENOUGH), key=lambda each: each.latency)


def _try(name: str, wish: Wish, docs: FloatArray, queries: FloatArray, truth: list[set[str]]) -> Trial:
    card = read_card(name)
    kind = open_kind("index", card.kind)
    half = len(docs) // 2
    with tempfile.TemporaryDirectory(prefix="rerankdistill-advise-") as place:
        before, _, _ = _measure(Path(place) / "half", card, kind, docs[:half], queries)
        took, found, build = _measure(Path(place) / "whole", card, kind, docs, queries)
        disk, kept = _bytes(Path(place) / "whole", tuple(getattr(kind, "mapped", ())))
    shares = [len({doc_id for doc_id, _ in hits} & best) / DEPTH for hits, best in zip(found, truth, strict=True)]
    grown = max(1.0, wish.documents / len(docs))
    if card.kind in GRAPHS:
        latency = took * max(1.0, math.log(max(2, wish.documents)) / math.log(len(docs)))
    else:
        latency = took + max(0.0, took - before) / (len(docs) - half) * max(0, wish.documents - len(docs))
    memory = kept * grown + ID_BYTES * wish.documents
    return Trial(name, float(np.mean(shares)), build, disk * grown, memory, took, latency)


def _measure(
    folder: Path, card: IndexCard, kind: Any, docs: FloatArray, queries: FloatArray
) -> tuple[float, list[list[tuple[str, float]]], float]:
    """(median milliseconds a query, what was found, seconds of the build)."""
    began = time.perf_counter()
    ids = [str(row) for row in range(len(docs))]
    build_index(folder, card, ids, docs, {"docs": "sample", "encoder": "sample"}, kind)
    build = time.perf_counter() - began
    index = open_index(folder, kind)
    index.search(queries[:2], DEPTH)
    found, seconds = [], []
    for row in range(len(queries)):
        began = time.perf_counter()
        found += index.search(queries[row : row + 1], DEPTH)
        seconds.append(time.perf_counter() - began)
    return 1e3 * float(np.median(seconds)), found, build


def _bytes(folder: Path, mapped: tuple[str, ...]) -> tuple[int, int]:
    """(of all files of an index, of those that are read into memory); the ids are counted elsewhere."""
    sizes = {path.relative_to(folder).as_posix(): path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    kept = {name: size for name, size in sizes.items() if not (mapped and name.startswith(mapped))}
    return sum(sizes.values()), sum(size for name, size in kept.items() if name.endswith((".faiss", ".npy")))
