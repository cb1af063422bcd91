"""What a search answers, over a work folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny_work import documents, write_work

from rerankdistill.errors import MissingArtifact
from rerankdistill.serving.library import called, open_library


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, tiny_bert: str, tiny_cross: Path) -> Path:
    return write_work(tmp_path_factory.mktemp("searched") / "work", tiny_bert, tiny_cross)


@pytest.fixture(scope="module")
def client(work: Path) -> Iterator[Any]:
    from fastapi.testclient import TestClient

    from rerankdistill.serving.run import assemble
    from rerankdistill.serving.settings import Settings

    app = assemble(Settings(place=work, device="cpu", threads=1, dtype="float32", max_chars=1000))
    with TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False) as found:
        yield found


def search(client: Any, **asked: Any) -> dict[str, Any]:
    answer = client.post("/search", json={"query": "cat rain", "budget_ms": 20_000, **asked})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def ids(found: dict[str, Any]) -> list[str]:
    return [hit["doc_id"] for hit in found["hits"]]


def test_every_engine_that_is_offered_answers(client):
    about = client.get("/search/engines").json()
    offered = ["small", "small before", "bm25", "bm25 + small", "bm25 + small before"]
    assert about["engines"] == [*offered, "small > reader", "bm25 > reader", "bm25 + small > reader"]
    assert about["documents"] == 32
    assert about["fields"]["kind"] == ["weather", "animal"]
    assert about["fields"]["doc_id"] == [], "a field of many values is none to choose from"
    for name in about["engines"]:
        found = search(client, engine=name, top=5)
        assert found["engine"] == name
        assert len(found["hits"]) == 5
        assert [hit["rank"] for hit in found["hits"]] == [1, 2, 3, 4, 5]


def test_an_engine_answers_as_its_index_does(client, work):
    from rerankdistill.encoding import open_encoder

    folder = work / "students/small-seed1"
    encoder = open_encoder(str(folder), device="cpu", max_tokens={"query": 32, "doc": 64})
    library = open_library(work, device="cpu")
    wanted = library.rankers["small"].index.search(encoder.encode(["cat rain"], "query"), 7)[0]
    found = search(client, engine="small", top=7)
    assert [(hit["doc_id"], pytest.approx(hit["score"], abs=1e-5)) for hit in found["hits"]] == wanted
    assert ids(search(client, engine="bm25", top=2)) == ["d00", "d16"]


@pytest.mark.parametrize(
    ("condition", "passes"),
    [
        ({"field": "kind", "equals": "animal"}, lambda row: row["metadata"]["kind"] == "animal"),
        ({"field": "year", "at_least": 1995, "at_most": 2000}, lambda row: 1995 <= row["metadata"]["year"] <= 2000),
        ({"field": "tags", "any_of": ["fish", "sun"]}, lambda row: {"fish", "sun"} & set(row["metadata"]["tags"])),
        ({"field": "doc_id", "prefix": "d1"}, lambda row: row["_id"].startswith("d1")),
        ({"field": "year", "at_least": "1995"}, lambda row: False),
    ],
    ids=["equals", "range", "any", "prefix", "another type"],
)
@pytest.mark.parametrize("engine", ["small", "bm25 + small"])
def test_a_filter_leaves_no_gaps_in_the_list(client, engine, condition, passes):
    """Filtering the best ten afterwards would lose what stands further down."""
    allowed = {row["_id"] for row in documents() if passes(row)}
    found = ids(search(client, engine=engine, filters=[condition], top=32, depth=32))
    assert set(found) == allowed
    everything = ids(search(client, engine="small", top=32, depth=32))
    if engine == "small":
        assert found == [doc_id for doc_id in everything if doc_id in allowed]
        assert ids(search(client, engine=engine, filters=[condition], top=2, depth=2)) == found[:2]


def test_weights_decide_who_is_heard_in_a_fusion(client):
    alone = {name: ids(search(client, engine=name, depth=32)) for name in ("bm25", "small")}
    for weights, name in (([1, 0], "bm25"), ([0, 1], "small")):
        found = ids(search(client, engine="bm25 + small", weights=weights, depth=32))
        assert found[:3] == alone[name][:3]
    ranks = search(client, engine="bm25 + small", fuse="rrf")["hits"]
    assert 0 < ranks[0]["score"] <= 2 / 61


def test_reranking_puts_what_was_read_first_and_says_how_much_that_was(client):
    found = search(client, engine="bm25 > reader", top=6, rerank_depth=4)
    assert found["reranked"] == 4
    assert not found["stopped_early"]
    scores = [hit["score"] for hit in found["hits"][:4]]
    assert scores == sorted(scores, reverse=True)
    assert [hit["reranked"] for hit in found["hits"]] == [True] * 4 + [False] * 2
    assert set(ids(found)[:4]) == set(ids(search(client, engine="bm25", top=4)))


def test_without_time_nothing_is_reranked_and_that_is_said(client):
    found = search(client, engine="small > reader", budget_ms=0)
    assert found["reranked"] == 0
    assert found["stopped_early"]
    assert "0 of" in found["notes"][0]
    assert ids(found) == ids(search(client, engine="small"))


@pytest.mark.parametrize("engine", ["small", "bm25", "small > reader"])
def test_why_points_at_sentences_of_the_text(client, engine):
    found = search(client, engine=engine, why=True, top=3)
    for hit in found["hits"]:
        for span in hit["why"]:
            sentence = hit["text"][span["start"] : span["end"]]
            assert sentence.endswith(".")
            assert sentence[0] in "TA"
    asked = {"query": "cat rain", "engine": engine, "doc_ids": ids(found)}
    told = client.post("/search/why", json=asked).json()["why"]
    assert told == {hit["doc_id"]: hit["why"] for hit in found["hits"]}


def test_each_stage_has_its_time(client):
    found = search(client, engine="bm25 + small > reader", why=True)
    stages = {"encode bm25", "search bm25", "encode small", "search small", "fuse", "rerank", "why", "total"}
    assert set(found["latency_ms"]) == stages
    assert found["latency_ms"]["total"] >= found["latency_ms"]["rerank"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/search", {"query": ""}),
        ("/search", {"query": "x" * 1001}),
        ("/search", {"query": "cat", "engine": "nobody"}),
        ("/search", {"query": "cat", "engine": "bm25 > nobody"}),
        ("/search", {"query": "cat", "engine": "+"}),
        ("/search", {"query": "cat", "engine": ">"}),
        ("/search", {"query": "cat", "weights": [1, 2, 3]}),
        ("/search", {"query": "cat", "filters": [{"field": "nothing", "equals": 1}]}),
        ("/search", {"query": "cat", "filters": [{"feld": "year"}]}),
        ("/search", {"query": "cat", "top": 0}),
        ("/search/why", {"query": "cat", "doc_ids": ["nowhere"]}),
        ("/search/why", {"query": "cat", "doc_ids": []}),
        ("/judgements", {"query": "cat", "doc_id": "nowhere", "grade": 1}),
        ("/judgements", {"query": "cat", "doc_id": "d01", "grade": 7}),
        ("/judgements", {"query": " ", "doc_id": "d01", "grade": 1}),
    ],
)
def test_a_bad_request_is_an_answer_and_no_failure(client, path, body):
    answer = client.post(path, json=body)
    assert 400 <= answer.status_code < 500, answer.text
    assert answer.json()["error"]["message"]


def test_a_query_that_bm25_does_not_know_finds_nothing_and_fails_nowhere(client):
    assert search(client, query="zzzz", engine="bm25", why=True)["hits"] == []
    assert search(client, query="zzzz", engine="bm25 > reader")["hits"] == []
    assert len(search(client, query="zzzz", engine="bm25 + small")["hits"]) == 10


def test_the_page_is_there_and_lets_nothing_in_from_elsewhere(client):
    for path, kind in (("/page", "text/html"), ("/page/page.js", "text/javascript"), ("/page/page.css", "text/css")):
        answer = client.get(path)
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith(kind)
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "http" not in answer.text.replace("http://www.w3.org/2000/svg", "")
    assert client.get("/", follow_redirects=False).headers["location"] == "/page"


def test_an_index_of_other_documents_is_left_out_and_named(work, tmp_path):
    shutil.copytree(work, tmp_path / "work")
    with (tmp_path / "work/collection/corpus.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"_id": "new", "text": "one more"}) + "\n")
    with pytest.raises(MissingArtifact, match="no index"):
        open_library(tmp_path / "work", device="cpu")


def test_a_student_without_an_index_is_left_out_and_said_how_it_gets_one(work, tmp_path):
    shutil.copytree(work, tmp_path / "work")
    shutil.rmtree(tmp_path / "work/indexes/flat-small-seed1")
    (tmp_path / "work/indexes/bm25/manifest.json").write_text("{", "utf-8")
    library = open_library(tmp_path / "work", device="cpu")
    assert library.names() == ["small before", "small before > reader"]
    assert any("no index" in note for note in library.notes)
    assert any("manifest" in note for note in library.notes)


def test_a_key_is_asked_for_by_all_but_the_page(work, monkeypatch):
    from fastapi.testclient import TestClient

    from rerankdistill.serving.run import assemble
    from rerankdistill.serving.settings import Settings

    monkeypatch.setenv("RERANKDISTILL_API_KEYS", "k" * 20)
    with TestClient(assemble(Settings(place=work, device="cpu", threads=1)), base_url="http://127.0.0.1") as client:
        assert client.get("/page").status_code == 200
        assert client.get("/search/engines").status_code == 401
        assert client.post("/search", json={"query": "cat"}).status_code == 401
        assert client.post("/judgements", json={"query": "cat", "doc_id": "d01", "grade": 1}).status_code == 401
        headers = {"Authorization": f"Bearer {'k' * 20}"}
        assert client.post("/search", json={"query": "cat"}, headers=headers).status_code == 200


def test_engines_are_called_as_the_report_calls_them():
    names = {folder: called(folder) for folder in ("small-seed1", "small.before", "small.control-seed1", "small-seed2")}
    assert list(names.values()) == ["small", "small before", "small control", "small seed 2"]
