"""A folder of files becomes a student and a report; what is new costs its own, and no test query is trained on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tomlkit
from helpers_pipeline import Heard
from mini_pipeline import TOPICS

from rerankdistill.cards import parse
from rerankdistill.errors import CardError, DataError
from rerankdistill.pipeline.adapt import adapt
from rerankdistill.pipeline.adapting import split_of
from rerankdistill.pipeline.reading import AdaptCard
from rerankdistill.queries.generate import Log, requests_for
from rerankdistill.queries.styles import StyleCard
from rerankdistill.types import Doc

LOOSE = {"round_trip": 0, "teacher_first": False}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    home = tmp_path / "files"
    home.mkdir()
    for number, (title, text, _) in enumerate(TOPICS[:60]):
        (home / f"{number:02d}.md").write_text(f"# {title}\n\n{text} It is the place number {number} of this guide.\n")
    return home


@pytest.fixture
def pipeline(tmp_path: Path, mini: dict[str, Any]) -> str:
    table = {**mini, "name": "tiny", "check": False}
    path = tmp_path / "tiny.toml"
    path.write_text(tomlkit.dumps(table), "utf-8")
    return str(path)


def run(folder: Path, pipeline: str, out: Path, on: tuple[str, ...] = (), **fields: Any) -> tuple[Heard, Any]:
    asked = {"docs": str(folder), "sift": LOOSE, "held_out": 0.2, "queries": 120, **fields}
    heard = Heard()
    return heard, adapt(parse(AdaptCard, asked, "adapt"), pipeline, (), on, out, heard)


def queries_of(out: Path) -> dict[str, str]:
    rows = map(json.loads, (out / "collection/queries.jsonl").read_text("utf-8").splitlines())
    return {row["_id"]: row["text"] for row in rows}


def test_a_folder_becomes_a_student_and_a_second_run_does_nothing(folder: Path, pipeline: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    heard, found = run(folder, pipeline, out)
    assert {"documents", "queries written", "collection"} <= set(heard.ran)
    assert any("queries are left to train on, too few" in line for line in heard.said)
    report, by_teacher = found.reports
    names = {row["name"] for row in json.loads((report / "report.json").read_text("utf-8"))["rows"]}
    assert {"bm25", "small before", "small", "small control"} <= names
    assert all((student / "model.safetensors").exists() for student in found.students)
    assert [sieve["name"] for sieve in found.funnel] == ["form", "copied", "script", "distinct"]
    told = [json.loads((each / "report.json").read_text("utf-8"))["notes"] for each in (report, by_teacher)]
    assert told[0][0].startswith("Evidence: generated. The queries were written by rules")
    assert told[0][1].startswith("Queries: form ")
    assert "Evidence: judged by fused, who taught the student" in told[1][0]
    again, _ = run(folder, pipeline, out)
    assert again.ran == {}


def test_no_query_about_a_held_out_document_trains(folder: Path, pipeline: str, tmp_path: Path) -> None:
    run(folder, pipeline, tmp_path / "out")
    docs = {}
    for split in ("train", "dev", "test"):
        lines = (tmp_path / f"out/collection/qrels/{split}.tsv").read_text("utf-8").splitlines()[1:]
        docs[split] = {line.split("\t")[1] for line in lines}
        assert docs[split]
    assert not docs["train"] & docs["test"]
    assert not docs["train"] & docs["dev"]


def test_what_is_held_out_is_asked_about_as_everything_else_is() -> None:
    """Two choices by the same hash of a document's id: few queries all went to the test, in the first style alone."""
    styles = [StyleCard(name=name, rule="title") for name in ("a", "b", "c", "d")]
    asked = list(requests_for([Doc(f"doc {n}", "text") for n in range(3000)], [(style, 150) for style in styles]))
    test = [each for each in asked if split_of(each.doc.doc_id, AdaptCard(docs="somewhere")) == "test"]
    assert 0.05 < len(test) / len(asked) < 0.15
    assert {each.style.name for each in test} == {"a", "b", "c", "d"}


def test_new_documents_cost_their_own_queries(folder: Path, pipeline: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(folder, pipeline, out, styles={"title": 1, "sentence": 1}, queries=0)
    log = out / "query-log/rules.jsonl"
    before = dict(Log(log).known)
    (folder / "new.md").write_text("# A new lighthouse\n\nIt was built last year on the rocks of the northern cape.\n")
    run(folder, pipeline, out, styles={"title": 1, "sentence": 1}, queries=0)
    after = Log(log).known
    assert {key: after[key] for key in before} == before
    assert len(after) == len(before) + 2
    assert "A new lighthouse" in queries_of(out).values()


def test_what_a_collections_test_asks_is_kept_out(
    folder: Path, pipeline: str, collection: Path, tmp_path: Path
) -> None:
    title = TOPICS[5][0]
    lines = (collection / "queries.jsonl").read_text("utf-8").splitlines()
    first = next(n for n, line in enumerate(lines) if json.loads(line)["_id"] == "q40")
    lines[first] = json.dumps({"_id": "q40", "text": title.upper()})
    (collection / "queries.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
    styles = {"title": 1.0}
    run(folder, pipeline, tmp_path / "free", styles=styles, queries=60, dev=0.3)
    assert title in queries_of(tmp_path / "free").values()
    asked = {"styles": styles, "queries": 60, "dev": 0.3, "keep_out": [str(collection)]}
    _, found = run(folder, pipeline, tmp_path / "kept", (str(collection),), **asked)
    assert title not in queries_of(tmp_path / "kept").values()
    assert found.funnel[-1]["name"] == "test queries"
    assert found.funnel[-1]["passed"] < found.funnel[-1]["came"]
    assert len(found.reports) == 3


def test_the_teacher_and_the_first_stages_sift(folder: Path, pipeline: str, tmp_path: Path) -> None:
    sift = {"round_trip": 3, "teacher_first": True, "percentile": 20}
    _, found = run(folder, pipeline, tmp_path / "out", sift=sift, queries=200)
    sieves = {sieve["name"]: sieve for sieve in found.funnel}
    assert [*sieves][-3:] == ["round trip", "teacher first", "percentile"]
    assert sieves["percentile"]["passed"] <= sieves["teacher first"]["passed"] < sieves["round trip"]["came"]
    counted = {}
    for split in ("train", "dev", "test"):
        counted[split] = len((tmp_path / f"out/collection/qrels/{split}.tsv").read_text("utf-8").splitlines()) - 1
    assert counted["train"] + counted["dev"] == sieves["percentile"]["passed"]
    assert sieves["round trip"]["came"] + counted["test"] == sieves["distinct"]["passed"], (
        "no test is the teacher's own"
    )


def test_what_cannot_be_is_one_clear_error(folder: Path, pipeline: str, tmp_path: Path) -> None:
    with pytest.raises(CardError, match="conversational cannot be written without one"):
        run(folder, pipeline, tmp_path / "a", styles={"conversational": 1})
    with pytest.raises(DataError, match="no such file or folder"):
        run(tmp_path / "nowhere", pipeline, tmp_path / "b")
    (tmp_path / "one").mkdir()
    (tmp_path / "one/a.md").write_text("word")
    with pytest.raises(DataError, match="no query is left"):
        run(tmp_path / "one", pipeline, tmp_path / "c")
