"""Documents, indexes and weights of a work folder change while it is searched, and the server follows."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from live import http, serving, wait_for
from tiny_work import documents, write_work

from rerankdistill.artifacts import MANIFEST, write_text
from rerankdistill.pipeline.indexing import Reader, update
from rerankdistill.pipeline.step import Quiet
from rerankdistill.serving.library import open_library
from rerankdistill.serving.weights import write_weights

NEW = {"_id": "d99", "title": "zebra", "text": "A zebra stood in the snow."}
ENGINES = ("bm25", "small", "bm25 + small", "small > reader")


@pytest.fixture
def work(tmp_path: Path, tiny_bert: str, tiny_cross: Path) -> Path:
    return write_work(tmp_path / "work", tiny_bert, tiny_cross)


@pytest.fixture
def url(work: Path) -> Iterator[str]:
    with serving(work, device="cpu", poll=0.1) as found:
        yield found


def search(url: str, query: str, engine: str) -> dict[str, Any]:
    answer = http.post(f"{url}/search", json={"query": query, "engine": engine, "top": 50, "budget_ms": 20_000})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def ids(url: str, query: str, engine: str) -> list[str]:
    return [hit["doc_id"] for hit in search(url, query, engine)["hits"]]


def state(url: str) -> dict[str, Any]:
    found: dict[str, Any] = http.get(f"{url}/readyz").json()
    return found


@contextmanager
def asking(url: str) -> Iterator[None]:
    """Clients that search all the time; not one may be turned away."""
    stop, wrong, count = threading.Event(), [], [0]

    def ask(engine: str) -> None:
        while not stop.is_set():
            try:
                assert len(ids(url, "cat rain", engine)) > 1
                count[0] += 1
            except Exception as error:
                wrong.append(error)

    threads = [threading.Thread(target=ask, args=(engine,)) for engine in ENGINES]
    for each in threads:
        each.start()
    try:
        yield
    finally:
        stop.set()
        for each in threads:
            each.join(60)
    assert not wrong, wrong[:3]
    assert count[0] > 10


def write_corpus(work: Path, rows: list[dict[str, Any]]) -> None:
    write_text(work / "collection/corpus.jsonl", "".join(json.dumps(row) + "\n" for row in rows))


def bring_up(work: Path, index: str, new: list[dict[str, Any]], gone: list[str]) -> None:
    """What ``rerankdistill indexes update`` does."""
    more, less = work.parent / "more.jsonl", work.parent / "gone.txt"
    more.write_text("".join(json.dumps(row) + "\n" for row in new), "utf-8")
    less.write_text("\n".join(gone), "utf-8")
    name = index.removeprefix("flat-")
    reader = None if index == "bm25" else Reader(str(work / "students" / name), device="cpu")
    update(work / "indexes" / index, more, less if gone else None, str(work / "collection"), reader, Quiet())


def test_an_updated_index_is_searched_without_turning_a_search_away(work, url):
    with asking(url):
        write_corpus(work, [*documents()[1:], NEW])
        bring_up(work, "bm25", [NEW], ["d00"])
        wait_for(lambda: "small" in state(url)["refused"], 30)
        assert ids(url, "zebra", "bm25") == [], "until every index is of these documents, the old ones are searched"
        assert "d00" in ids(url, "cat rain", "small")
        bring_up(work, "flat-small-seed1", [NEW], ["d00"])
        bring_up(work, "flat-small.before", [NEW], ["d00"])
        wait_for(lambda: ids(url, "zebra", "bm25") == ["d99"], 30)
    assert not state(url)["refused"]
    for engine in ("small", "small before", "small > reader"):
        found = ids(url, "cat rain", engine)
        assert "d00" not in found
        assert "d99" in found
    assert http.get(f"{url}/search/engines").json()["documents"] == 32
    told = http.post(f"{url}/search/why", json={"query": "zebra", "engine": "bm25", "doc_ids": ["d99"]}).json()
    assert told["why"]["d99"]
    assert http.post(f"{url}/judgements", json={"query": "zebra", "doc_id": "d99", "grade": 1}).json()["judged"] == 1
    assert 'swaps_total{result="taken",what="search"} 1.0' in http.get(f"{url}/metrics").text


def test_what_weigh_learnt_is_taken_up(work, url):
    assert search(url, "cat rain", "bm25 + small")["weights"] == []
    marks = {name: open_library(work, device="cpu").rankers[name].mark for name in ("bm25", "small")}
    write_weights(work, "bm25 + small", {"weights": [1.0, 2.5], "marks": marks})
    wait_for(lambda: search(url, "cat rain", "bm25 + small")["weights"] == [1.0, 2.5], 30)


def test_a_damaged_index_is_refused_and_the_old_one_searched(work, url):
    before = ids(url, "cat rain", "small")
    folder = work / "indexes/flat-small-seed1"
    (folder / "index.faiss").write_bytes(b"nothing")
    (folder / MANIFEST).touch()
    wait_for(lambda: state(url)["refused"], 30)
    assert "small cannot be opened any more" in state(url)["refused"]
    assert state(url)["status"] == "ready"
    assert ids(url, "cat rain", "small") == before


def test_students_that_did_not_change_are_not_opened_again(work):
    before = open_library(work, device="cpu")
    now = open_library(work, device="cpu", before=before)
    for name, ranker in now.rankers.items():
        assert ranker.embedder is before.rankers[name].embedder
    assert now.rerankers["reader"] is before.rerankers["reader"]
