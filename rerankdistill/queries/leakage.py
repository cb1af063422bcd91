"""Nothing of the test may be trained on: training queries that are a test query, or nearly one, are found.

Two looks, because either alone is fooled. *Words*: the meaningful stems of both are mostly the same (case, order,
endings, stop words changed nothing). *Vectors*: an encoder puts both in nearly the same place, while enough words agree
that they ask for the same thing and not merely in the same field. The fewer words agree (some were replaced by others
that mean the same), the nearer the vectors must be.

The limits were chosen on nine collections' queries (BEIR's nfcorpus, fiqa, scidocs, nq, quora …) and measured on five
others; see ``tests/queries/test_leakage.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from rerankdistill.queries.filters import content
from rerankdistill.types import FloatArray, Query

SAME_WORDS = 0.5
"""Share of meaningful stems in common (Jaccard) from which two queries are one."""
NEAR = ((0.7, 0.3), (0.85, 0.1))
"""Cosine from which two queries are one, where so many stems agree."""
BLOCK = 512


class Leak(NamedTuple):
    """A training query and the test query that it repeats; ``by`` is ``words`` or ``vectors``."""

    query_id: str
    test_id: str
    by: str
    likeness: float


def find_leaks(
    training: Sequence[Query],
    test: Sequence[Query],
    training_vectors: FloatArray | None = None,
    test_vectors: FloatArray | None = None,
) -> list[Leak]:
    """The training queries that repeat a test query, each with the one that it repeats most.

    Args:
        training_vectors, test_vectors: ``[n, d]`` and ``[m, d]`` of unit length; without them only words are compared.
    """
    theirs = [content(query.text) for query in test]
    by_word: dict[str, list[int]] = {}
    for at, words in enumerate(theirs):
        for word in words:
            by_word.setdefault(word, []).append(at)
    found = []
    for start in range(0, len(training), BLOCK):
        part = training[start : start + BLOCK]
        near = None
        if training_vectors is not None and test_vectors is not None and len(test):
            near = training_vectors[start : start + BLOCK] @ test_vectors.T
        for row, query in enumerate(part):
            leak = _leak(query, content(query.text), theirs, by_word, test, None if near is None else near[row])
            if leak is not None:
                found.append(leak)
    return found


def _leak(
    query: Query,
    words: frozenset[str],
    theirs: Sequence[frozenset[str]],
    by_word: dict[str, list[int]],
    test: Sequence[Query],
    near: FloatArray | None,
) -> Leak | None:
    likeness = {at: _jaccard(words, theirs[at]) for at in {at for word in words for at in by_word.get(word, ())}}
    if likeness:
        best = max(likeness, key=lambda at: (likeness[at], -at))
        if likeness[best] >= SAME_WORDS:
            return Leak(query.query_id, test[best].query_id, "words", likeness[best])
    if near is not None:
        close = np.flatnonzero(near >= NEAR[0][0])
        for at in close[np.argsort(-near[close], kind="stable")].tolist():
            if any(near[at] >= cosine and likeness.get(at, 0.0) >= share for cosine, share in NEAR):
                return Leak(query.query_id, test[at].query_id, "vectors", float(near[at]))
    return None


def _jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    return len(one & other) / max(len(one | other), 1)
