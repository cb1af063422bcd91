"""What a student is measured on while it trains: fixed candidates of held-out training queries, re-ranked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rerankdistill.evaluation.measure import measure
from rerankdistill.types import Example, FloatArray, Hit, Judgement, Run


@dataclass(frozen=True)
class DevRanking:
    """nDCG@10 of a student on lists of documents that never change. The test judgements have no part in it."""

    examples: Sequence[Example]
    judgements: Sequence[Judgement]
    texts: Callable[[Sequence[str]], list[str]]
    documents: Callable[[Sequence[str]], FloatArray] | None = None
    """Vectors of documents by id, for a student that reads none itself."""
    measure: str = "ndcg@10"

    def __call__(self, student: Any) -> float:
        scores = _by_similarity(student, self) if student.layout == "batch" else _by_pairs(student, self)
        hits = {
            example.query_id: [Hit(d, float(s)) for d, s in zip(example.doc_ids, row, strict=True)]
            for example, row in zip(self.examples, scores, strict=True)
        }
        return measure(Run.from_hits("dev", hits), self.judgements, (self.measure,)).means[self.measure]


def _by_similarity(student: Any, dev: DevRanking) -> list[np.ndarray]:
    numbers: dict[str, int] = {}
    for example in dev.examples:
        for doc_id in example.doc_ids:
            numbers.setdefault(doc_id, len(numbers))
    encoder, known = student.encoder(), dev.documents
    docs = known(list(numbers)) if known else encoder.encode(dev.texts(list(numbers)), "doc")
    if hasattr(student, "remembered"):  # its index keeps less of a document
        docs = student.remembered(docs)
    queries = encoder.encode([example.query for example in dev.examples], "query")
    rows = [docs[[numbers[doc_id] for doc_id in example.doc_ids]] for example in dev.examples]
    return [encoder.similarity(queries[[at]], block)[0] for at, block in enumerate(rows)]


def _by_pairs(student: Any, dev: DevRanking) -> list[np.ndarray]:
    pairs = [(e.query, text) for e in dev.examples for text in dev.texts(e.doc_ids)]
    ends = np.cumsum([len(example.doc_ids) for example in dev.examples])
    return np.split(student.score(pairs), ends[:-1])
