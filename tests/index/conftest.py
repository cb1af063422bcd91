"""Every kind of index over the same small collection, filled with what it accepts."""

from __future__ import annotations

import gzip
import importlib
import importlib.util
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_array

from rerankdistill.index.build import IndexCard, build_index, open_index
from rerankdistill.kinds import names, open_kind
from rerankdistill.representations import TokenVectors

ODD_IDS = ["a b", "x\ty", "é/ü", "emoji😀", "q'\"", "%20", "日本", "line\nbreak", "-1", "0"]


@dataclass
class World:
    """A collection with duplicates: every third text and vector occurs again under another id."""

    doc_ids: list[str]
    texts: list[str]
    vectors: np.ndarray

    def content(self, kind: Any) -> Any:
        if kind.accepts == "sparse":
            return csr_array(np.maximum(self.vectors, 0))
        if kind.accepts == "tokens":  # one to four a document, and equal ones in equal documents
            numbers = [*range(300), *range(0, 300, 3)]
            parts = [[self.vectors[(n + 7 * at) % 300] for at in range(n % 4 + 1)] for n in numbers]
            return TokenVectors.of([np.stack(part) for part in parts], 16)
        return self.texts if kind.accepts == "texts" else self.vectors

    def queries(self, kind: Any) -> Any:
        if kind.accepts == "texts":
            return ["w1 w2 w3", "w4", "w5 w5 w250"]
        if kind.accepts == "vectors":
            return self.vectors[[0, 7, 11]] + 0.01
        return self.content(kind)[[0, 7, 11]]


@pytest.fixture(scope="session")
def world() -> World:
    rng = np.random.default_rng(3)
    vectors = rng.normal(size=(300, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    texts = [" ".join(f"w{n}" for n in rng.integers(0, 40, 12)) for _ in range(300)]
    again = np.arange(0, 300, 3)
    vectors = np.concatenate([vectors, vectors[again]])
    texts += [texts[row] for row in again]
    doc_ids = [*ODD_IDS, *(f"d{n}" for n in rng.permutation(390))]
    return World(doc_ids, texts, vectors)


MARKS = {"lucene": pytest.mark.java, "lucene_impact": pytest.mark.java, "cagra": pytest.mark.gpu}


@pytest.fixture(params=[pytest.param(n, marks=MARKS.get(n, ())) for n in names("index")])
def kind(request: pytest.FixtureRequest) -> tuple[str, Any]:
    """(name, class) of each kind there is."""
    if request.param.startswith("lucene") and not all(map(importlib.util.find_spec, ("pyserini", "jnius"))):
        pytest.skip("pyserini is not installed: pip install 'rerankdistill[lucene]'")
    if request.param == "milvus" and not all(map(importlib.util.find_spec, ("pymilvus", "milvus_lite"))):
        pytest.skip("pymilvus is not installed: pip install 'rerankdistill[milvus]'")
    if request.param == "cagra" and not hasattr(importlib.import_module("faiss"), "GpuIndexCagra"):
        pytest.skip("this faiss has no cuVS")
    return request.param, open_kind("index", request.param)


@pytest.fixture
def build(tmp_path: Path) -> Callable[..., Any]:
    """Build an index of a kind in a temporary folder and open it."""

    def make(name: str, doc_ids: Any, content: Any, **options: Any) -> Any:
        card, kind_class = IndexCard(kind=name, options=options), open_kind("index", name)
        folder = tmp_path / name
        build_index(folder, card, doc_ids, content, {"docs": "d1", "encoder": "e1"}, kind_class)
        return open_index(folder, kind_class)

    return make


@dataclass
class SciFact:
    doc_ids: list[str]
    texts: list[str]
    query_ids: list[str]
    queries: list[str]
    relevant: dict[str, set[str]]

    def ndcg10(self, hits_of: dict[str, list[Any]]) -> float:
        """Binary nDCG@10 over every judged query."""
        gains = []
        for query_id, relevant in self.relevant.items():
            found = [hit[0] for hit in hits_of.get(query_id, [])[:10]]
            got = sum(1 / np.log2(rank + 2) for rank, name in enumerate(found) if name in relevant)
            gains.append(got / sum(1 / np.log2(rank + 2) for rank in range(min(10, len(relevant)))))
        return float(np.mean(gains))


@pytest.fixture(scope="session")
def scifact(data: Path) -> SciFact:
    """scifact's documents and its 300 test queries."""

    def lines(name: str) -> list[Any]:
        with gzip.open(data / "scifact" / name, "rt", encoding="utf-8") as file:
            return [json.loads(line) for line in file]

    with gzip.open(data / "scifact/qrels/test.tsv.gz", "rt", encoding="utf-8") as file:
        judged = [line.split("\t") for line in file.read().splitlines()[1:]]
    relevant: dict[str, set[str]] = {}
    for query_id, doc_id, _ in judged:
        relevant.setdefault(query_id, set()).add(doc_id)
    docs = lines("corpus.jsonl.gz")
    questions = {row["_id"]: row["text"] for row in lines("queries.jsonl.gz") if row["_id"] in relevant}
    texts = [f"{doc['title']} {doc['text']}".strip() for doc in docs]
    return SciFact([doc["_id"] for doc in docs], texts, list(questions), list(questions.values()), relevant)
