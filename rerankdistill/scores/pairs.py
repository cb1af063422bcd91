"""Pairs of texts as 64-bit keys, and a sorted index over them: forty million pairs are two numpy arrays, never a dict.

A text's hash is the first 64 bits of BLAKE2b; a pair's key mixes the hashes of its two texts. Among 40 million pairs
two share a key with a probability of 4e-5.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rerankdistill.types import FloatArray, Group

KeyArray = NDArray[np.uint64]


class GroupKeys(NamedTuple):
    """The hashes of a group: its query's text, its documents' texts ``[n]``, and the pairs' keys ``[n]``."""

    query: int
    docs: KeyArray
    pairs: KeyArray


@lru_cache(maxsize=65536)  # a document is a candidate of many queries
def text_hash(text: str) -> int:
    """64 bits that stand for a text."""
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def pair_keys(queries: KeyArray, docs: KeyArray) -> KeyArray:
    """``[n]`` keys of pairs: a splitmix64 round over the query's hash, then over its sum with the document's."""
    return _mix(_mix(queries) + docs)


def group_keys(group: Group, needs_texts: bool, whole: bool = False) -> GroupKeys:
    """The keys of a group.

    A text stands for itself, whatever its id. For a teacher that knows documents by id (``needs_texts`` false) the
    document's id is hashed instead, and the query's id together with its text. For one that judges a ``whole`` list,
    the query is hashed together with the list in its order: what was said in another list was said of something else.
    """
    if needs_texts:
        asked, names = group.query.text, group.texts
    else:
        asked, names = f"{group.query.query_id}\0{group.query.text}", group.doc_ids
    query = text_hash("\0".join((asked, *(f"{text_hash(name):x}" for name in names))) if whole else asked)
    docs = np.fromiter((text_hash(name) for name in names), np.uint64, len(names))
    return GroupKeys(query, docs, pair_keys(np.full(len(docs), query, np.uint64), docs))


def _mix(x: KeyArray) -> KeyArray:
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


class PairIndex:
    """Scores by pair key: a few sorted runs of falling size, merged as they grow alike."""

    def __init__(self) -> None:
        self._runs: list[tuple[KeyArray, FloatArray]] = []
        self.low, self.high = np.inf, -np.inf

    def __len__(self) -> int:
        return sum(len(keys) for keys, _ in self._runs)

    def add(self, keys: KeyArray, scores: FloatArray) -> None:
        """Take in scores ``[n]`` of keys ``[n]``; a key that is there already keeps its first score."""
        _, first = np.unique(keys, return_index=True)
        first = first[~self.find(keys[first])[1]]
        if not len(first):
            return
        self._runs.append((keys[first], scores[first]))
        known = scores[first][~np.isnan(scores[first])]
        if len(known):
            self.low, self.high = min(self.low, float(known.min())), max(self.high, float(known.max()))
        while len(self._runs) > 1 and len(self._runs[-2][0]) < 2 * len(self._runs[-1][0]):
            merged = (np.concatenate(columns) for columns in zip(*self._runs[-2:], strict=True))
            all_keys, all_scores = merged
            order = np.argsort(all_keys, kind="stable")
            self._runs[-2:] = [(all_keys[order], all_scores[order])]

    def find(self, keys: KeyArray) -> tuple[FloatArray, NDArray[np.bool_]]:
        """``[n]`` scores, NaN where missing, and ``[n]`` whether each key is there."""
        scores = np.full(len(keys), np.nan, np.float32)
        found = np.zeros(len(keys), np.bool_)
        for run, values in self._runs:
            at = np.minimum(np.searchsorted(run, keys), len(run) - 1)
            hit = run[at] == keys
            scores[hit] = values[at[hit]]
            found |= hit
        return scores, found
