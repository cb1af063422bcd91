"""Weights of a fusion: learnt from judged queries, kept where they are worth something, and served."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_work import write_work
from typer.testing import CliRunner

from rerankdistill import artifacts
from rerankdistill.cli.app import app
from rerankdistill.collections.load import load_collection
from rerankdistill.errors import DamagedArtifact, DataError, UsageError
from rerankdistill.runs.weights import WEIGHTS, learn_weights
from rerankdistill.serving import weighing
from rerankdistill.serving.library import open_library
from rerankdistill.serving.weighing import learnt, split_of
from rerankdistill.serving.weights import FILE, read_weights, weights_for, write_weights
from rerankdistill.types import Hit, Judgement, Run


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, tiny_bert: str, tiny_cross: Path) -> Path:
    return write_work(tmp_path_factory.mktemp("weighed") / "work", tiny_bert, tiny_cross)


@given(st.lists(st.sampled_from(WEIGHTS), min_size=1, max_size=3))
def test_the_best_of_the_weights_is_found_where_each_counts_by_itself(wanted):
    target = (1.0, *wanted)
    found = learn_weights(len(target), lambda tried: -sum(abs(a - b) for a, b in zip(tried, target, strict=True)))
    assert found == target


def test_of_equal_gains_all_count_alike():
    asked = []
    assert learn_weights(3, lambda tried: asked.append(tried) or 0.0) == (1.0, 1.0, 1.0)
    assert len(set(asked)) == len(asked), "no fusion is measured twice"


def lists(quality: float, seed: int, queries: int = 60) -> Run:
    """Twenty documents a query, the first relevant; a run of quality 1 puts it first, of 0 anywhere."""
    chance = np.random.default_rng(seed)
    found = {}
    for number in range(queries):
        scores = chance.normal(size=20)
        scores[0] += 6 * quality
        order = np.argsort(-scores)
        found[f"q{number}"] = [Hit(f"d{number}-{at}", float(scores[at])) for at in order]
    return Run.from_hits(f"of {quality}", found)


def test_noise_is_given_no_voice_and_what_it_is_worth_is_told_of_unseen_queries():
    judged = [Judgement(f"q{number}", f"d{number}-0", 1) for number in range(60)]
    ids = [each.query_id for each in judged]
    weights, unseen = learnt([lists(0.5, 1), lists(0.0, 2)], judged, ids, 20)
    assert weights[1] <= 0.35
    assert unseen.queries == 60
    assert unseen.difference > 0.02
    assert unseen.p < 0.05
    both, alike = learnt([lists(0.3, 1), lists(0.3, 3)], judged, ids, 20)
    assert both[1] > 0, "two that know as much are both heard"
    assert abs(alike.difference) < 0.05


def test_an_entry_is_read_for_the_very_students_that_it_was_learnt_with(tmp_path):
    write_weights(tmp_path, "bm25 + small", {"weights": [1.0, 0.35], "marks": {"bm25": "", "small": "m1"}})
    write_weights(tmp_path, "bm25 + other", {"weights": [1.0, 2.5], "marks": {"bm25": "", "other": "m2"}})
    entries = read_weights(tmp_path)
    assert weights_for(entries, {"bm25": "", "small": "m1"}) == (1.0, 0.35)
    assert weights_for(entries, {"small": "m1", "bm25": ""}) == (0.35, 1.0)
    assert weights_for(entries, {"bm25": "", "small": "trained again"}) == ()
    assert weights_for(entries, {"bm25": ""}) == ()
    write_weights(tmp_path, "bm25 + small", None)
    assert list(read_weights(tmp_path)) == ["bm25 + other"]


@pytest.mark.parametrize(
    "text",
    ["{", "[]", "3", '{"a": {"weights": [1], "marks": {}}}', '{"a": {"weights": [-1], "marks": {"b": ""}}}',
     '{"a": {"weights": [NaN], "marks": {"b": ""}}}', '{"a": 3}'],
)  # fmt: skip
def test_a_damaged_file_is_named_and_stops_no_server(work, tmp_path, text):
    (tmp_path / FILE).write_text(text, "utf-8")
    with pytest.raises(DamagedArtifact, match="cannot be read"):
        read_weights(tmp_path)
    (work / FILE).write_text(text, "utf-8")
    try:
        library = open_library(work, device="cpu")
    finally:
        (work / FILE).unlink()
    assert library.weights == {}
    assert any("weights" in note for note in library.notes)


def test_judgements_of_the_test_are_the_last_to_be_learnt_from(work, tmp_path):
    source = load_collection(str(work / "collection"))
    assert split_of(source) == "test"
    with pytest.raises(DataError, match="'dev'"):
        split_of(source, "dev")


def run(*words: str) -> Any:
    return CliRunner().invoke(app, list(words))


def test_the_command_learns_and_the_server_fuses_by_it(work, monkeypatch):
    from fastapi.testclient import TestClient

    from rerankdistill.serving.run import assemble
    from rerankdistill.serving.settings import Settings

    few = run("weigh", str(work), "--device", "cpu")
    assert isinstance(few.exception, UsageError)
    assert "16 queries" in few.exception.what
    monkeypatch.setattr(weighing, "FEWEST", 10)
    monkeypatch.setattr(weighing, "learnt", lambda *rest: ((1.0, 0.05), learnt(*rest)[1]))
    found = run("weigh", str(work), "--device", "cpu", "--depth", "32")
    assert found.exit_code == 0, found.output
    assert "bm25 + small" in found.output
    entry = read_weights(work).get("bm25 + small")
    if entry is None:  # a random model, and nothing was better
        assert "not kept" in found.output
        marks = {each: open_library(work, device="cpu").rankers[each].mark for each in ("bm25", "small")}
        write_weights(work, "bm25 + small", {"weights": [1.0, 0.05], "marks": marks})
    else:
        assert entry["weights"] == [1.0, 0.05]
        assert entry["split"] == "test"
    app_ = assemble(Settings(place=work, device="cpu", threads=1))
    with TestClient(app_, base_url="http://127.0.0.1") as client:

        def search(**asked: Any) -> dict[str, Any]:
            body = {"query": "cat rain", "engine": "bm25 + small", "depth": 32, "top": 32, **asked}
            answer: dict[str, Any] = client.post("/search", json=body).json()
            return answer

        learned, given, alike = search(), search(weights=[1.0, 0.05]), search(fuse="zscore")
        assert learned["weights"] == [1.0, 0.05]
        assert learned["hits"] == given["hits"]
        assert alike["weights"] == []
        assert learned["hits"] != alike["hits"]
        assert search(fuse="rrf")["weights"] == []
        assert search(engine="small")["weights"] == []
        turned = search(engine="small + bm25")
        assert turned["weights"] == [0.05, 1.0]
        assert [hit["doc_id"] for hit in turned["hits"]] == [hit["doc_id"] for hit in learned["hits"]]


@pytest.mark.parametrize("engine", ["small", "bm25 > reader", "bm25 + small > reader", "nobody + bm25", "bm25 + bm25"])
def test_what_fuses_nothing_is_a_clear_error(work, monkeypatch, engine):
    monkeypatch.setattr(weighing, "FEWEST", 10)
    found = run("weigh", str(work), "--device", "cpu", "--engine", engine)
    assert isinstance(found.exception, UsageError)
    assert found.exception.fix


def test_a_query_encoder_is_searched_by_the_index_of_who_reads_its_documents(work, tmp_path, tiny_bert):
    """What adapt makes by default."""
    import shutil

    shutil.copytree(work, tmp_path / "work")
    root = tmp_path / "work"
    index = root / "indexes/flat-small-seed1"
    made = artifacts.read(index, "index")
    shutil.copytree(root / "students/small-seed1", root / "students/asker-seed1")
    card = {"student": {"init": tiny_bert, "kind": "query_tower", "query_tokens": 32, "doc_tokens": 64}}
    inputs = {"name": "asker", artifacts.READER: str(made.inputs["encoder"])}
    manifest = artifacts.plan("student", 1, card, inputs, 1)
    (root / "students/asker-seed1" / artifacts.MANIFEST).write_text(json.dumps(asdict(manifest)), "utf-8")
    library = open_library(root, device="cpu")
    assert "asker" in library.rankers
    assert library.rankers["asker"].mark != library.rankers["small"].mark
    assert not library.notes
