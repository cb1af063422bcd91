"""Judged test queries of which no training judgement speaks: what a student learned there is no memory of documents.

Collections are often split by query, and a document that is relevant to a training query may be relevant to a test
query too. A student trained on labels then scores by preferring the documents that it was shown as positives, whatever
is asked. The queries whose relevant documents were no training positives cannot be answered that way; figures of theirs
stand beside the figures of all (as for new items against known ones in recommendation).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from rerankdistill.evaluation.measure import Measured
from rerankdistill.types import Judgement

SUFFIX = " unseen"
"""Behind a measure's name: over the queries of :func:`unseen_queries` alone."""
FEWEST = 5
"""A mean over fewer queries than these says nothing."""


def unseen_queries(judgements: Iterable[Judgement], positives: Collection[str]) -> frozenset[str]:
    """The queries with a relevant document and none among ``positives``, the relevant documents of training queries.

    Empty where that says nothing: when it would be every query with a relevant document, or none.
    """
    relevant: dict[str, bool] = {}
    for query_id, doc_id, grade in judgements:
        if grade > 0:
            relevant[query_id] = relevant.get(query_id, False) or doc_id in positives
    unseen = frozenset(query_id for query_id, met in relevant.items() if not met)
    return unseen if len(unseen) < len(relevant) else frozenset()


def add_unseen(found: Measured, measure: str, query_ids: Collection[str]) -> Measured:
    """The same figures, with ``measure`` over these queries alone as one more; as they were where there are none."""
    if not query_ids:
        return found
    name = measure + SUFFIX
    values = {query_id: value for query_id, value in found.per_query[measure].items() if query_id in query_ids}
    means = {**found.means, name: sum(values.values()) / len(values)}
    return Measured(means, {**found.per_query, name: values}, found.missing)
