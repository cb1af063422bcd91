"""Re-rank a run: the same documents for each query, in the order of another scorer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any, TypeVar

import numpy as np

from rerankdistill.contracts import PairScorer
from rerankdistill.errors import DataError
from rerankdistill.runs.columns import Columns, in_batches
from rerankdistill.types import FloatArray, Run

Value = TypeVar("Value")

Asked = tuple[str, Sequence[str]]
"""A query id and the ids of its documents."""
ScoreGroups = Callable[[Sequence[Asked]], Sequence[Sequence[float] | FloatArray]]
"""Scores for each document of each query asked about, in the same shape."""

BATCH = 32
"""Queries handed to a scorer at a time, so that it can sort their texts by length together."""


def rerank(
    name: str,
    run: Run,
    score_groups: ScoreGroups,
    depth: int | None = None,
    progress: Callable[[int], None] | None = None,
    batch: int = BATCH,
) -> Run:
    """The run in the order of ``score_groups``, by (-score, doc_id).

    Args:
        depth: re-rank this many of each query's best, and leave the others out.
        progress: told the number of queries done since it was last told.

    Raises:
        DataError: the scorer gave another number of scores than documents, or a NaN.
    """
    columns = Columns(name)
    for part in in_batches(run if depth is None else run.top(depth), batch):
        asked = [(query_id, [hit.doc_id for hit in hits]) for query_id, hits in part]
        for (query_id, doc_ids), scores in zip(asked, score_groups(asked), strict=True):
            if len(scores) != len(doc_ids):
                what = f"query {query_id!r}: {len(scores)} scores for {len(doc_ids)} documents"
                raise DataError(what, where=f"run {name!r}")
            columns.add(query_id, zip(doc_ids, map(float, scores), strict=True))
        if progress:
            progress(len(part))
    return columns.run()


def by_pairs(
    scorer: PairScorer, query_texts: Mapping[str, str], texts: Callable[[Sequence[str]], Sequence[str]]
) -> ScoreGroups:
    """Score with a cross-encoder. ``texts`` looks up what it reads of documents, by id."""

    def score(asked: Sequence[Asked]) -> list[FloatArray]:
        found = texts(list(chain.from_iterable(doc_ids for _, doc_ids in asked)))
        questions = chain.from_iterable([_lookup(query_texts, query_id)] * len(ids) for query_id, ids in asked)
        pairs = list(zip(questions, found, strict=True))
        scores = np.asarray(scorer.score(pairs) if pairs else [], np.float32)
        return np.split(scores, np.cumsum([len(ids) for _, ids in asked])[:-1])

    return score


def by_vectors(
    query_ids: Sequence[str], query_vectors: FloatArray, doc_ids: Sequence[str], doc_vectors: FloatArray
) -> ScoreGroups:
    """Score by the dot product of vectors made before: ``[q, d]`` of the queries, ``[n, d]`` of the documents.

    Each product is summed in float64 over its own row, as the vector indexes do, so that both give equal scores.
    """
    query_rows = {query_id: row for row, query_id in enumerate(query_ids)}
    doc_rows = {doc_id: row for row, doc_id in enumerate(doc_ids)}

    def score(asked: Sequence[Asked]) -> list[FloatArray]:
        out = []
        for query_id, wanted in asked:
            query = query_vectors[_lookup(query_rows, query_id)].astype(np.float64)
            block = doc_vectors[[_lookup(doc_rows, doc_id) for doc_id in wanted]].astype(np.float64)
            out.append((block * query).sum(axis=1).astype(np.float32))
        return out

    return score


def by_similarity(
    similarity: Callable[[Any, Any], FloatArray],
    query_ids: Sequence[str],
    queries: Any,
    doc_ids: Sequence[str],
    docs: Any,
) -> ScoreGroups:
    """Score what is no matrix but is read by rows as one: ``similarity`` of rows of ``queries`` with rows of ``docs``
    is ``[q, n]``."""
    query_rows = {query_id: row for row, query_id in enumerate(query_ids)}
    doc_rows = {doc_id: row for row, doc_id in enumerate(doc_ids)}

    def score(asked: Sequence[Asked]) -> list[FloatArray]:
        found = []
        for query_id, wanted in asked:
            block = docs[[_lookup(doc_rows, doc_id) for doc_id in wanted]]
            found.append(similarity(queries[[_lookup(query_rows, query_id)]], block)[0])
        return found

    return score


def _lookup(table: Mapping[str, Value], name: str) -> Value:
    if name not in table:
        fix = "check that both are of one collection"
        raise DataError(f"the run names {name!r}, which the re-ranker does not know", fix=fix)
    return table[name]
