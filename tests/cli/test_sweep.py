"""``sweep`` from the command line, over a tiny collection and a tiny random model."""

from __future__ import annotations

import json

import pytest

SWEEP = """
name = "tried"
pipeline = "{pipeline}"
seeds = 1

[objectives.labels]
loss = "infonce"

[objectives.kl]
loss = "kl_div"
"""


@pytest.fixture
def sweep(tmp_path, pipeline):
    path = tmp_path / "tried.toml"
    path.write_text(SWEEP.format(pipeline=pipeline), "utf-8")
    return path


def test_one_table_as_json_as_text_and_as_a_file(call, sweep, tmp_path):
    out = tmp_path / "w"
    plan = call("sweep", sweep, "--out", out, "--dry-run")
    assert plan.code == 0, plan.err
    assert not out.exists()
    done = call("sweep", sweep, "--out", out, "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert [(row["objective"], row["teacher"], row["seeds"]) for row in found["rows"]] == [
        ("labels", "bm25", 1),
        ("kl", "bm25", 1),
    ]
    assert found["baseline"] == "labels"
    assert found["rows"][0]["p"] is None
    assert 0 <= found["rows"][1]["p"] <= 1
    again = call("sweep", sweep, "--out", out)
    assert again.code == 0, again.err
    assert "run     " not in again.err
    assert "labels" in again.out
    assert "over baseline" in again.out
    (file,) = (out / "sweeps").iterdir()
    assert "| kl |" in file.read_text("utf-8")


def test_a_mistake_is_one_clear_error(call, sweep, tmp_path):
    sweep.write_text(sweep.read_text("utf-8").replace('loss = "kl_div"', 'loss = "kl_dvi"'), "utf-8")
    done = call("sweep", sweep, "--out", tmp_path / "w", "--dry-run")
    assert done.code == 5
    assert done.err.startswith("error: ")
    assert "kl_div" in done.err
