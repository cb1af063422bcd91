"""``train`` and ``eval`` from the command line, over a tiny collection and a tiny random model."""

from __future__ import annotations

import json

import pytest


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """One folder for the whole module: the tests go on from one another's products."""
    return tmp_path_factory.mktemp("walk") / "w"


def test_a_dry_run_makes_nothing(call, pipeline, out):
    done = call("eval", pipeline, "--out", out, "--dry-run")
    assert done.code == 0, done.err
    assert "not made yet" in done.out
    assert "about 0" not in done.out, "what was never timed takes an unknown time, not none"
    assert not out.exists()


def test_parts_of_the_way_print_where_their_products_are(call, pipeline, out):
    for verb in ("index", "search", "candidates", "score", "examples"):
        done = call(verb, pipeline, "--out", out)
        assert done.code == 0, done.err
        folders = done.out.split()
        assert folders, f"{verb} made nothing"
        assert all((out / folder / "manifest.json").is_file() for folder in folders)


def test_train_says_where_the_student_is_and_anyone_can_load_it(call, pipeline, out):
    done = call("train", pipeline, "--out", out)
    assert done.code == 0, done.err
    assert done.out == ""
    assert "student: " in done.err
    folder = out / "students" / "tiny-seed1"
    assert (folder / "modules.json").is_file() or list(folder.rglob("modules.json"))
    again = call("train", pipeline, "--out", out)
    assert "run     " not in again.err


def test_eval_json_is_json_and_nothing_else(call, pipeline, out):
    done = call("eval", pipeline, "--out", out, "--json")
    assert done.code == 0, done.err
    report = json.loads(done.out)
    assert {"collection", "split", "queries", "rows"} <= report.keys()
    assert report["queries"] == 10
    kinds = [row["kind"] for row in report["rows"]]
    assert {"first_stage", "student_before", "control", "student", "teacher"} <= set(kinds)
    for row in report["rows"]:
        assert {"name", "kind", "first_stage", "measures", "latency_ms"} <= row.keys()
        assert row["measures"].keys() == {"ndcg@10", "mrr@10"}
        assert all(0 <= value <= 1 for value in row["measures"].values())


def test_a_second_eval_runs_no_step_and_prints_the_same(call, pipeline, out):
    first = call("eval", pipeline, "--out", out, "--json")
    plan = call("eval", pipeline, "--out", out, "--dry-run")
    assert plan.out.splitlines()[-1].startswith("0 of ")
    assert json.loads(call("eval", pipeline, "--out", out, "--json").out) == json.loads(first.out)
    table = call("eval", pipeline, "--out", out)
    assert table.code == 0
    assert "ndcg@10" in table.out.lower()
    assert "report: " in table.err


def test_a_changed_field_names_what_changed(call, pipeline, out):
    done = call("eval", pipeline, "--out", out, "--dry-run", "--set", "mine.depth=7")
    running = [line for line in done.out.splitlines() if line.startswith("run ")]
    assert any("depth changed" in line for line in running), done.out
    assert any(line.startswith("fresh") and "index" in line for line in done.out.splitlines()), "the index is untouched"


def test_short_options_speak_of_every_student(call, pipeline, out):
    done = call("train", pipeline, "--out", out, "--dry-run", "--seeds", 2, "--loss", "margin_mse + 0.5 infonce")
    assert done.code == 0, done.err
    assert "seed2" in done.out.replace(" ", "").replace("-", "") or "seed 2" in done.out, done.out
    done = call("train", pipeline, "--out", out, "--dry-run", "--student", "./no-model")
    assert (done.code, "no-model" in done.err) == (5, True)


def test_small_is_refused_where_a_file_has_no_small_form_and_plans_the_small_one_where_it_has(call, pipeline, tmp_path):
    done = call("train", pipeline, "--out", tmp_path / "w", "--small", "--dry-run")
    assert (done.code, "no table [small]" in done.err) == (2, True), done.err
    both = tmp_path / "both.toml"
    both.write_text(pipeline.read_text("utf-8") + "\n[small]\nseeds = [1, 2]\nmine = { depth = 4 }\n", "utf-8")
    small = call("eval", both, "--out", tmp_path / "w", "--small", "--dry-run")
    assert (small.code, "(seed 2)" in small.out) == (0, True), small.err
    assert "(seed 2)" not in call("eval", both, "--out", tmp_path / "w", "--dry-run").out
    told = call("pipelines", "check", both).out.splitlines()
    assert [line.startswith(f"{both} --small: good") for line in told] == [False, True]
