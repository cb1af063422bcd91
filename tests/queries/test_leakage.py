"""The leak check sees through light paraphrases of real test queries, and leaves other collections' queries alone."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import wordnet
from paraphrases import KINDS, paraphrase

from rerankdistill.queries.leakage import find_leaks
from rerankdistill.types import Query

pytestmark = [pytest.mark.realdata, pytest.mark.model]

COLLECTIONS = ("scifact", "cranfield", "cisi", "cacm", "vaswani-npl")
MOST = 30
"""Queries of each collection, so that the test takes seconds."""


@pytest.fixture(scope="module")
def encode(minilm: str) -> Any:
    from rerankdistill.encoding import open_encoder

    encoder = open_encoder(minilm, device="cpu", max_tokens={"query": 64})
    return lambda queries: encoder.encode([query.text for query in queries], "query")


@pytest.fixture(scope="module")
def asked(data: Path) -> dict[str, list[Query]]:
    """The test queries of each collection."""
    from rerankdistill.collections.load import load_collection

    return {name: list(load_collection(str(data / name)).queries("test"))[:MOST] for name in COLLECTIONS}


@pytest.fixture(scope="module")
def vectors(encode: Any, asked: dict[str, list[Query]]) -> dict[str, Any]:
    return {name: encode(queries) for name, queries in asked.items()}


def test_every_exact_copy_is_found(asked: dict[str, list[Query]], vectors: dict[str, Any]) -> None:
    for name, queries in asked.items():
        copies = [Query(f"copy of {query.query_id}", query.text) for query in queries]
        assert len(find_leaks(copies, queries)) == len(queries), f"{name}: by words alone"
        assert len(find_leaks(copies, queries, vectors[name], vectors[name])) == len(queries)


@pytest.mark.skipif(not wordnet.HOME.is_dir(), reason="no WordNet here: apt-get install wordnet-base")
def test_nearly_every_light_paraphrase_is_found(
    encode: Any, asked: dict[str, list[Query]], vectors: dict[str, Any]
) -> None:
    found: dict[str, float] = {}
    for kind in KINDS:
        leaked = 0
        for name, queries in asked.items():
            changed = [Query(f"{kind} {query.query_id}", paraphrase(query.text, kind, 1)) for query in queries]
            leaked += len(find_leaks(changed, queries, encode(changed), vectors[name]))
        found[kind] = leaked / sum(map(len, asked.values()))
    each = {kind: share for kind, share in found.items() if kind != "all"}
    assert min(each.values()) >= 0.95, found
    assert found["all"] >= 0.9, "all five changes at once are hardly light any more"


def test_other_collections_queries_are_not_suspected(asked: dict[str, list[Query]], vectors: dict[str, Any]) -> None:
    for name, queries in asked.items():
        for other in set(COLLECTIONS) - {name}:
            leaks = find_leaks(asked[other], queries, vectors[other], vectors[name])
            assert len(leaks) <= 0.01 * len(asked[other]), (name, other, leaks[:5])
