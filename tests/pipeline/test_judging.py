"""A person's hour is well spent and never lost: telling pairs first, every answer on the disk, read by evaluation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from rerankdistill import artifacts
from rerankdistill.cli.app import app
from rerankdistill.collections.load import load_collection
from rerankdistill.collections.work import remember
from rerankdistill.errors import DamagedArtifact, DataError, UsageError
from rerankdistill.evaluation.judging import Answers, telling_pairs
from rerankdistill.evaluation.measure import measure
from rerankdistill.pipeline.judging import Session
from rerankdistill.runs.store import save_run
from rerankdistill.types import Run, View

ORDERS = {
    "small-seed1": {"q1": ["a", "b", "c"], "q2": ["c", "a"], "q3": ["a"]},
    "bm25": {"q1": ["b", "a", "c"], "q2": ["d", "a"], "q3": ["a"]},
}


def run_of(name: str) -> Run:
    hits = {query: [(doc, float(-at)) for at, doc in enumerate(docs)] for query, docs in ORDERS[name].items()}
    return Run.from_hits(name, hits)


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A folder of products with two runs of three queries."""
    home, root = tmp_path / "towns", tmp_path / "work"
    (home / "qrels").mkdir(parents=True)
    docs = [{"_id": each, "title": f"Title {each}", "text": f"The text of {each}."} for each in "abcd"]
    queries = [{"_id": each, "text": f"what is {each}"} for each in ("q1", "q2", "q3")]
    for name, rows in (("corpus", docs), ("queries", queries)):
        (home / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    judged = "".join(f"{each}\ta\t1\n" for each in ("q1", "q2", "q3"))
    (home / "qrels/test.tsv").write_text(f"query-id\tcorpus-id\tscore\n{judged}", "utf-8")
    remember(root, str(home), {}, View.TITLE_TEXT)
    for name in ORDERS:
        place = root / "runs/test" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        with artifacts.write(place, artifacts.plan("run", 1, {}, {})) as folder:
            save_run(folder, run_of(name))
    (root / "students/small-seed1").mkdir(parents=True)
    return root


def session(work: Path, one: str = "", other: str = "") -> Session:
    return Session(work, one, other, "test", work / "judgements")


def test_those_pairs_come_first_that_decide_most() -> None:
    pairs = telling_pairs(run_of("small-seed1"), run_of("bm25"))
    assert [(pair.query_id, pair.doc_id, round(pair.effect, 3)) for pair in pairs] == [
        ("q2", "c", 1.0), ("q2", "d", -1.0), ("q1", "a", 0.369), ("q1", "b", -0.369),
    ]  # fmt: skip
    assert telling_pairs(run_of("bm25"), run_of("bm25")) == []


def test_a_scripted_hour_at_the_terminal_becomes_judgements(work: Path) -> None:
    first = CliRunner().invoke(app, ["judge", str(work)], input="3\nwhat?\nn\nu\nn\nq\n")
    assert first.exit_code == 0, first.output
    assert "2 pairs of 1 queries judged: small-seed1 is ahead of bm25 by 7.00" in first.output
    lines = (work / "judgements/answers.jsonl").read_text("utf-8").splitlines()
    assert len(lines) == 4, "the answer that was taken back is on record, too"
    second = CliRunner().invoke(app, ["judge", str(work)], input="s\ny\n")
    assert second.exit_code == 0, second.output
    assert "what is q1" in second.output
    assert "what is q2" not in second.output, "nobody is asked twice"
    source = load_collection(str(work / "judgements"))
    assert {(j.query_id, j.doc_id): j.grade for j in source.judgements("test")} == {
        ("q2", "c"): 3, ("q2", "d"): 0, ("q1", "b"): 1,
    }  # fmt: skip
    found = measure(run_of("bm25"), source.judgements("test"), ("ndcg@10",))
    assert found.per_query["ndcg@10"] == {"q1": pytest.approx(1.0), "q2": 0.0}


def test_the_page_asks_takes_and_takes_back(work: Path) -> None:
    testing = pytest.importorskip("fastapi.testclient")
    from rerankdistill.serving.judging import create_app

    client = testing.TestClient(create_app(session(work)))
    assert "Somebody searches for" in client.get("/").text
    pair = client.get("/pair").json()["pair"]
    assert (pair["query"], pair["title"], pair["left"]) == ("what is q2", "Title c", 4)
    assert not {"one", "system", "run", "effect"} & set(pair), "who found it is not told"
    told = {"query_id": "q2", "doc_id": "c", "grade": 2}
    after = client.post("/answer", json=told).json()
    assert after["pair"]["doc_id"] == "d"
    assert Answers(work / "judgements/answers.jsonl").grades == {("q2", "c"): 2}, "it is on the disk"
    assert client.post("/answer", json={**told, "grade": 9}).status_code == 422
    assert client.post("/answer", json={**told, "doc_id": "zzz"}).status_code == 422
    assert client.post("/answer", data={"grade": "1"}).status_code == 422, "a form of another site is no answer"
    assert client.get("/pair", headers={"host": "evil.example"}).status_code == 400
    assert client.post("/undo", json={"sure": True}).json()["pair"]["doc_id"] == "c"
    assert Answers(work / "judgements/answers.jsonl").grades == {}


def test_answers_survive_a_torn_line_and_a_damaged_one_is_told(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    answers = Answers(path)
    answers.give("q", "a", 1)
    answers.give("q", "b", None)
    with path.open("ab") as file:
        file.write(b'{"query_id": "q", "do')
    again = Answers(path)
    assert again.grades == {("q", "a"): 1, ("q", "b"): None}
    again.give("q", "c", 2)
    assert [judged.doc_id for judged in Answers(path).judgements()] == ["a", "c"]
    path.write_text("no json\n", "utf-8")
    with pytest.raises(DamagedArtifact, match="line 1"):
        Answers(path)


def test_what_cannot_be_compared_is_one_clear_error(work: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no run is called 'nope'"):
        session(work, one="nope")
    with pytest.raises(DataError, match="do not differ"):
        session(work, one="bm25", other="bm25")
    (tmp_path / "bare").mkdir()
    bare: Any = (tmp_path / "bare", "", "", "test", tmp_path / "out", str(tmp_path / "towns"))
    with pytest.raises(DataError, match="which run to compare"):
        Session(*bare)
