"""A student that learns queries alone shares the index of whoever reads its documents."""

from __future__ import annotations

import pyarrow.parquet as pq
import pytest
from helpers_pipeline import evaluate, figures, train

from rerankdistill.encoding import TextEncoder
from rerankdistill.errors import CardError


@pytest.fixture
def tower(mini):
    small = mini["students"]["small"]
    small["kind"] = "query_tower"
    small["options"] = {"init": small["options"]["init"].replace("student", "teacher")}
    return mini


def test_documents_are_encoded_once_for_teacher_and_students_and_the_index_is_one(tower, tmp_path, monkeypatch):
    read, encode = [], TextEncoder.encode

    def encoding(encoder, texts, role, *more):
        read.extend(texts if role == "doc" and len(texts) > 1 else [])  # single ones are timed
        return encode(encoder, texts, role, *more)

    monkeypatch.setattr(TextEncoder, "encode", encoding)
    heard, (report,) = evaluate({**tower, "seeds": [1, 2]}, tmp_path / "work")
    encoded = [name for name in heard.ran if name.startswith("vectors ")]
    assert encoded == ["vectors tiny-bi · docs"]
    assert any(name.startswith("teacher check") for name in heard.ran)
    assert len(read) == len(set(read)) == 80, "the check ranks with the vectors that are there"
    assert [name for name in heard.ran if "flat" in name and name.startswith("index ")] == ["index flat-tiny-bi"]
    found = figures(report)
    assert {"small", "small before", "small control", "bm25 + small"} <= found.keys()
    assert found["small before"] == pytest.approx(found["member tiny-bi"]), "untrained, the two towers are one model"
    runs = {path.name for path in (tmp_path / "work/runs/test").iterdir()}
    assert {"small-seed1", "small-seed2", "small.control-seed1"} <= runs


def test_a_log_of_queries_trains_without_its_judgements(tower, collection, tmp_path):
    small = tower["students"]["small"]
    small.update(queries=["asked"], pseudo_positive=True)
    tower["check"] = False
    train(tower, tmp_path / "work")
    lane = tmp_path / "work/queries/asked"
    assert pq.read_table(lane / "judgements.parquet").num_rows == 0
    assert not any(pq.read_table(lane / "queries.parquet")["dev"].to_pylist())
    path = collection / "qrels/train.tsv"
    path.write_text(path.read_text().replace("\td3\t", "\td4\t"))
    heard = train(tower, tmp_path / "work")
    assert not heard.ran, "what they were judged for is nothing that it depends on"
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[:21]) + "\n")
    heard = train(tower, tmp_path / "work")
    assert heard.ran["queries asked"] == "asked queries changed"
    assert pq.read_table(lane / "queries.parquet").num_rows == 20


def test_labels_that_nobody_gave_are_not_learnt(tower, tmp_path):
    tower["students"]["small"]["queries"] = ["asked"]
    tower["check"] = False
    with pytest.raises(CardError, match="needs a positive"):
        train(tower, tmp_path / "work")


def test_vectors_are_not_matched_by_who_reads_no_documents(tower, teachers, tmp_path):
    match = {"match": str(teachers / "bi.toml"), "loss": "embed_cosine"}
    tower["students"]["small"]["stages"].insert(0, match)
    with pytest.raises(CardError, match="learns from ranked lists"):
        train(tower, tmp_path / "work")


def test_two_towers_of_two_lengths_share_one_folder(tower, models, tmp_path):
    options = {"init": str(models / "student"), "doc_tokens": 48}
    tower["students"]["small"]["options"] = {**options, "query_tokens": 16}
    other = {**tower["students"]["small"], "options": {**options, "query_tokens": 24}}
    third = {**tower["students"]["small"], "options": {**options, "doc_tokens": 40}}
    tower["students"] |= {"other": other, "third": third}
    heard = train(tower, tmp_path / "work")
    assert sum(name.startswith("vectors docs-") for name in heard.ran) == 2


def test_the_same_queries_are_not_taken_with_and_without_their_judgements(tower, tmp_path):
    tower["students"]["small"]["queries"] = ["train", "asked"]
    with pytest.raises(CardError, match="the same queries"):
        train(tower, tmp_path / "work")
