"""A student that learns queries alone shares the index of whoever reads its documents."""

from __future__ import annotations

import pyarrow.parquet as pq
import pytest
from helpers_pipeline import evaluate, figures, train

from rerankdistill.errors import CardError


@pytest.fixture
def tower(mini):
    small = mini["students"]["small"]
    small["kind"] = "query_tower"
    small["options"] = {"init": small["options"]["init"].replace("student", "teacher")}
    return mini


def test_documents_are_encoded_once_for_teacher_and_students_and_the_index_is_one(tower, tmp_path):
    heard, (report,) = evaluate({**tower, "seeds": [1, 2]}, tmp_path / "work")
    encoded = [name for name in heard.ran if name.startswith("vectors ")]
    assert encoded == ["vectors tiny-bi · docs"]
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


def test_the_same_queries_are_not_taken_with_and_without_their_judgements(tower, tmp_path):
    tower["students"]["small"]["queries"] = ["train", "asked"]
    with pytest.raises(CardError, match="the same queries"):
        train(tower, tmp_path / "work")
