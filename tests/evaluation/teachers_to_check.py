"""Teachers that are good, and teachers that only look like it, over any collection's candidates."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rerankdistill.evaluation.teacher_check import Evidence
from rerankdistill.types import Scale

Rows = Mapping[str, Any]


@dataclass(frozen=True)
class Bench:
    """Candidates with labels, and what a good teacher, the first stage and a student say of them."""

    doc_ids: Mapping[str, Sequence[str]]
    judgements: Mapping[str, Mapping[str, int]]
    good: Rows
    first: Rows
    student: Rows
    lengths: Rows
    scale: Scale = Scale.ZSCORE

    def evidence(self, rows: Rows, **changes: Any) -> Evidence:
        about = {"judgements": self.judgements, "first": self.first, "student": self.student, "lengths": self.lengths}
        return Evidence(self.doc_ids, rows, **{"scale": self.scale, **about, **changes})

    def every(self, score: Callable[[str, int], Any]) -> dict[str, Any]:
        """One row a query, by its id and its number."""
        return {query_id: score(query_id, number) for number, query_id in enumerate(self.doc_ids)}


def made_up_bench(queries: int = 60, documents: int = 20, relevant: int = 3, seed: int = 5) -> Bench:
    """Labels of three grades; a good teacher sees them through some noise, the first stage and the student through
    much. Lengths have nothing to do with them."""
    generator = np.random.default_rng(seed)
    doc_ids = {f"q{n}": [f"d{n}-{m}" for m in range(documents)] for n in range(queries)}
    truth = {}
    for query_id in doc_ids:
        grades = np.zeros(documents)
        grades[generator.choice(documents, relevant, replace=False)] = generator.integers(1, 4, relevant)
        truth[query_id] = grades
    judgements = {
        q: {d: int(g) for d, g in zip(doc_ids[q], row, strict=True) if g} | {doc_ids[q][0]: int(row[0])}
        for q, row in truth.items()
    }

    def seen(noise: float) -> dict[str, Any]:
        return {q: row + generator.normal(0, noise, documents) for q, row in truth.items()}

    lengths = {q: generator.integers(40, 2000, documents).astype(float) for q in doc_ids}
    return Bench(doc_ids, judgements, seen(0.7), seen(1.8), seen(1.5), lengths)


def bad_teachers(bench: Bench, seed: int = 3) -> dict[str, tuple[Rows, str]]:
    """``{what it is: (its scores, the fault that must be named first)}``."""
    generator = np.random.default_rng(seed)
    good, size = bench.good, {q: len(docs) for q, docs in bench.doc_ids.items()}

    def near(row: Any) -> Any:
        return np.asarray(row, float) * 7 + 3 + generator.normal(0, 1e-6, len(row))

    return {
        "constant": (bench.every(lambda q, n: np.full(size[q], 1.5)), "constant"),
        "constant of each query": (bench.every(lambda q, n: np.full(size[q], float(n))), "constant"),
        "constant but for rounding": (bench.every(lambda q, n: 9 + generator.normal(0, 1e-9, size[q])), "constant"),
        "random": (bench.every(lambda q, n: generator.normal(size=size[q])), "random"),
        "reversed": (bench.every(lambda q, n: -np.asarray(good[q])), "reversed"),
        "reversed on half": (bench.every(lambda q, n: np.asarray(good[q]) * (-1) ** n), "reversed in part"),
        "one-hot": (bench.every(lambda q, n: np.eye(size[q])[int(np.argmax(good[q]))]), "one-hot"),
        "length": (bench.every(lambda q, n: np.log1p(bench.lengths[q])), "length"),
        "brevity": (bench.every(lambda q, n: 1 / (1 + np.asarray(bench.lengths[q]))), "length"),
        "the student": (bench.every(lambda q, n: near(bench.student[q])), "copy"),
    }
