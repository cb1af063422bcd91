"""``report`` and ``rerank`` on runs that come from elsewhere."""

from __future__ import annotations

import gzip
import json
from itertools import pairwise

import pytest


@pytest.fixture
def runs(tmp_path):
    """Two runs of two queries and their qrels; the second run is the better one."""
    (tmp_path / "qrels.txt").write_text("1 0 a 1\n1 0 b 0\n2 0 c 1\n3 0 d 1\n")
    (tmp_path / "base.trec").write_text("1 Q0 b 1 2.0 x\n1 Q0 a 2 1.0 x\n2 Q0 e 1 2.0 x\n2 Q0 c 2 1.0 x\n")
    with gzip.open(tmp_path / "better.trec.gz", "wt") as file:
        file.write("1 Q0 a 1 2.0 x\n2 Q0 c 1 2.0 x\n")
    return tmp_path


def test_the_figures_of_made_up_runs_are_those_worked_by_hand(call, runs):
    done = call("report", runs / "base.trec", runs / "better.trec.gz", "--qrels", runs / "qrels.txt", "--json",
                "--measures", "mrr@10,recall@1")  # fmt: skip
    assert done.code == 0, done.err
    report = json.loads(done.out)
    rows = {row["name"]: row["measures"] for row in report["rows"]}
    assert report["queries"] == 3
    assert rows["base"] == pytest.approx({"mrr@10": (0.5 + 0.5 + 0) / 3, "recall@1": 0.0})
    assert rows["better"] == pytest.approx({"mrr@10": 2 / 3, "recall@1": 2 / 3}), "query 3 counts though nobody has it"


def test_a_report_folder_holds_every_format(call, runs, tmp_path):
    done = call("report", runs / "base.trec", "--qrels", runs / "qrels.txt", "--out", tmp_path / "r")
    assert done.code == 0, done.err
    assert {"report.json", "report.md", "report.html", "per_query.tsv"} <= {p.name for p in (tmp_path / "r").iterdir()}
    assert "base" in done.out


@pytest.mark.realdata
@pytest.mark.parametrize(("measure", "theirs"), [("map", "map"), ("mrr", "recip_rank"), ("precision@10", "P_10")])
def test_trec_evals_own_sample_gives_trec_evals_own_figures(call, data, measure, theirs):
    sample = data / "_eval-fixtures" / "trec_eval"
    lines = gzip.decompress((sample / "out.test.gz").read_bytes()).decode().splitlines()
    (wanted,) = [float(line.split()[2]) for line in lines if line.split()[0] == theirs]
    plain = sample / "qrels.test.gz"
    done = call("report", sample / "results.test.gz", "--qrels", plain, "--measures", measure, "--json")
    assert done.code == 0, done.err
    (row,) = json.loads(done.out)["rows"]
    assert round(row["measures"][measure], 4) == wanted


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["none.trec", "--qrels", "qrels.txt"], (4, 5), "none.trec"),
        (["base.trec", "--qrels", "none.txt"], (5,), "no such qrels file"),
        (["base.trec", "--qrels", "qrels.txt", "--measures", "ngcd@10"], (2,), "ngcd@10"),
        (["broken.trec", "--qrels", "qrels.txt"], (5,), "broken.trec"),
        (["base.trec", "--qrels", "empty.txt"], (5,), "empty.txt"),
        (["broken.gz", "--qrels", "qrels.txt"], (5,), "broken.gz"),
    ],
)
def test_a_bad_file_is_one_sentence_with_its_name(call, runs, monkeypatch, arguments, code, says):
    monkeypatch.chdir(runs)
    (runs / "broken.trec").write_text("1 Q0 a 1 high x\n")
    (runs / "empty.txt").write_text("")
    (runs / "broken.gz").write_bytes(gzip.compress(b"1 Q0 a 1 2.0 x\n" * 50)[:-12])
    done = call("report", *arguments)
    assert done.code in code, done.err
    assert says in done.err
    assert "Traceback" not in done.err
    assert not done.out


def test_two_runs_of_the_same_name_do_not_hide_one_another(call, runs):
    (runs / "other").mkdir()
    (runs / "other" / "base.trec").write_text("1 Q0 a 1 2.0 x\n")
    done = call("report", runs / "base.trec", runs / "other" / "base.trec", "--qrels", runs / "qrels.txt", "--json",
                "--measures", "mrr@10")  # fmt: skip
    assert done.code == 0, done.err
    assert len(json.loads(done.out)["rows"]) == 2


@pytest.fixture
def first_stage(tmp_path):
    run = tmp_path / "first.trec"
    run.write_text("".join(f"q{q} Q0 d{d} {d + 1} {60 - d} x\n" for q in range(20, 30) for d in range(40)))
    return run


@pytest.mark.parametrize("kind", ["bi_encoder", "cross_encoder"])
def test_a_reranked_run_has_the_same_documents_in_another_order(
    call, first_stage, collection, tiny_bert, tmp_path, kind
):
    out = tmp_path / "again.trec"
    done = call("rerank", first_stage, "--model", tiny_bert, "--collection", collection, "--out", out, "--kind", kind,
                "--depth", 10)  # fmt: skip
    assert done.code == 0, done.err
    assert done.out.strip() == str(out)
    rows = [line.split() for line in out.read_text().splitlines()]
    assert len(rows) == 100
    assert {row[2] for row in rows if row[0] == "q21"} == {f"d{n}" for n in range(10)}
    scores = [float(row[4]) for row in rows if row[0] == "q21"]
    assert all(a > b for a, b in pairwise(scores)), "trec_eval would sort ties its own way"


@pytest.mark.parametrize(
    ("change", "code", "says"),
    [
        ({"--kind": "by_encoder"}, 2, "by_encoder"),
        ({"--model": "./no-model"}, 5, "no-model"),
        ({"--collection": "./no-folder"}, 5, "no such folder"),
        ({"--split": "dev"}, 5, "dev"),
    ],
)
def test_rerank_refuses_what_is_not_there_and_writes_nothing(
    call, first_stage, collection, tiny_bert, tmp_path, change, code, says
):
    options = {"--model": tiny_bert, "--collection": collection, "--out": tmp_path / "o.trec"} | change
    done = call("rerank", first_stage, *(part for pair in options.items() for part in pair))
    assert (done.code, says in done.err) == (code, True), done.err
    assert "Traceback" not in done.err
    assert not (tmp_path / "o.trec").exists()


def test_a_run_of_another_collection_is_refused(call, collection, tiny_bert, tmp_path):
    run = tmp_path / "foreign.trec"
    run.write_text("q20 Q0 elsewhere 1 2.0 x\n")
    done = call("rerank", run, "--model", tiny_bert, "--collection", collection, "--out", tmp_path / "o.trec")
    assert (done.code, "elsewhere" in done.err) == (5, True), done.err
