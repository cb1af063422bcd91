"""Runs, judgements and a report small enough to check by eye."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from rerankdistill.evaluation.compare import compare
from rerankdistill.evaluation.measure import measure
from rerankdistill.types import Judgement, Report, Row, Run

NASTY = "</title><script>alert('x')</script> | *bold*"


class Trec:
    """Reads TREC's own formats, gzipped, without the package's help."""

    @staticmethod
    def lines(path: Path) -> list[list[str]]:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            return [line.split() for line in file]

    @classmethod
    def run(cls, path: Path) -> Run:
        hits: dict[str, list[tuple[str, float]]] = {}
        for query_id, _, doc_id, _, score, *_ in cls.lines(path):
            hits.setdefault(query_id, []).append((doc_id, float(score)))
        return Run.from_hits(path.name, hits)

    @classmethod
    def qrels(cls, path: Path) -> list[Judgement]:
        return [Judgement(query_id, doc_id, int(grade)) for query_id, _, doc_id, grade in cls.lines(path)]


@pytest.fixture
def trec() -> type[Trec]:
    return Trec


@pytest.fixture
def report() -> Report:
    """Twelve queries, one relevant document each; every engine puts it at a rank of its own."""
    ranks = {
        ("bm25", "first_stage"): [4, 3, 5, 2, 6, 4, 3, 5, 2, 4, 3, 1],
        ("before", "student_before"): [6, 5, 7, 4, 8, 6, 5, 7, 4, 6, 5, 3],
        ("control", "control"): [3, 4, 3, 2, 5, 3, 3, 4, 2, 3, 3, 2],
        ("distilled", "student"): [1, 2, 1, 1, 2, 1, 2, 1, 1, 2, 1, 1],
        (NASTY, "teacher"): [1] * 12,
    }
    judged = [Judgement(f"q{n}", f"d{n}-1", 1) for n in range(12)]
    rows = []
    for (name, kind), places in ranks.items():
        hits = {}
        for n, place in enumerate(places):
            docs = [f"x{n}-{at}" for at in range(10)]
            docs[place - 1] = f"d{n}-1"
            hits[f"q{n}"] = [(doc, 10.0 - at) for at, doc in enumerate(docs)]
        found = measure(Run.from_hits(name, hits), judged, ("mrr@10", "ndcg@10"))
        extra = {"seed_std": {"mrr@10": 0.004}, "seeds": 3, "parameters": 22_700_000} if kind == "student" else {}
        rows.append(Row(name, kind, "full collection", found.means, found.per_query, 3.25, extra))
    pairs = [("distilled", "before"), ("distilled", "control"), ("before", "bm25")]
    comparisons = tuple(c.as_dict() for c in compare(rows, pairs, ("mrr@10", "ndcg@10")))
    return Report(NASTY, "test", 12, tuple(rows), comparisons, (f"note on {NASTY}",))
