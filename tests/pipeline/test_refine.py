"""A teacher at test time that is not called one, or a figure of it that is no teacher's, flatters the student."""

from __future__ import annotations

import json
import shutil

import pytest
from helpers_pipeline import card_of, evaluate, planned, train

from rerankdistill.errors import CardError, DataError
from rerankdistill.examples.table import open_examples
from rerankdistill.pipeline.lanes import read_training
from rerankdistill.pipeline.lessons import Lessons
from rerankdistill.pipeline.proof import Proof
from rerankdistill.pipeline.verbs import all_lessons
from rerankdistill.pipeline.workspace import Workspace


@pytest.fixture
def refined(mini, teachers):
    small = mini["students"]["small"]
    small["stages"][0]["train"] = {"steps": 1, "batch": 4}
    first = {"options": {"kl_div": {"tau_teacher": 0.5}}, "steps": 60, "learning_rate": 0.02}
    second = {"teacher": str(teachers / "cross.toml"), "loss": "ranknet", "steps": 3, "learning_rate": 1e-3}
    rounds = [first, second | {"options": {"ranknet": {"weights": "ranks"}}}]
    small |= {"control": "none", "measure_before": False, "refine": {"depth": 10, "rounds": rounds}}
    return mini | {"check": False}


def test_the_rows_of_a_teacher_at_test_time_are_called_so_and_cost_its_time(refined, tmp_path):
    out = tmp_path / "work"
    run = tmp_path / "deployed.trec.gz"
    wanted = planned(refined, out)
    heard, (report,) = evaluate(refined, out)
    assert set(heard.ran) == wanted
    rows = {row["name"]: row for row in report["rows"]}
    before, reranked, after = (rows[f"small{each}"] for each in ("", " reranked", " refined"))
    assert after["kind"] == reranked["kind"] == "test_time"
    assert after["test_time_teacher"] == "fused, cross"
    assert reranked["test_time_teacher"] == "cross"
    assert after["latency_ms"] > before["latency_ms"]
    assert after["measures"].keys() == before["measures"].keys() >= {"recall@100", "ndcg@10"}
    assert after["measures"] != before["measures"], "sixty steps moved nothing"
    assert any("test time" in note for note in report["notes"])
    assert not planned(refined, out)

    shutil.copy(out / "runs/test/small-seed1/run.trec.gz", run)
    refined["evaluate"][0]["deployed"] = str(run)
    heard, (report,) = evaluate(refined, out)
    assert set(heard.ran) == {"report test"}
    churn = {row["name"]: row["churn@10"] for row in report["rows"]}
    assert churn["small"] == 0
    assert churn["bm25"] > 0.3
    assert churn["small refined"] > 0
    refined["students"]["small"]["refine"]["rounds"][0]["steps"] = 0
    refined["students"]["small"]["refine"]["rounds"][1]["steps"] = 0
    heard, (report,) = evaluate(refined, out)
    assert set(heard.ran) == {"run small-seed1+refined · test", "report test"}
    assert {row["name"]: row["churn@10"] for row in report["rows"]}["small refined"] == 0, "no step, and it moved"


def steps_of(table, tmp_path):
    ws = Workspace(card_of(table), tmp_path / "work")
    return Proof(ws, ws.card.evaluate[0], all_lessons(ws)).engines()


def test_what_cannot_be_refined_is_refused_before_anything_runs(refined, models, tmp_path):
    small = refined["students"]["small"]
    labelled = {"loss": "infonce", "options": {}}
    good, small["refine"]["rounds"] = small["refine"]["rounds"], [labelled]
    with pytest.raises(CardError, match="needs positive, which nobody has at test time"):
        steps_of(refined, tmp_path)
    small["refine"]["rounds"] = good
    names = [engine.name for engine in steps_of({**refined, "evaluate": [{"mode": "rerank"}]}, tmp_path)]
    assert "small refined" not in names, "it searches nothing"
    small |= {"kind": "cross_encoder", "options": {"init": str(models / "cross")}}
    with pytest.raises(CardError, match="has no query vector"):
        steps_of(refined, tmp_path)
    small["refine"], refined["evaluate"][0]["deployed"] = None, "nowhere.trec"
    ws = Workspace(card_of(refined), tmp_path / "work")
    proof = Proof(ws, ws.card.evaluate[0], all_lessons(ws))
    with pytest.raises(DataError, match=r"there is no run 'nowhere\.trec'"):
        proof.report_step()


def test_presumed_positives_give_way_for_the_student_and_never_for_its_control(mini, tmp_path):
    """A sentence of a document is a query that this document is only presumed to answer best."""
    small = mini["students"]["small"]
    small["stages"][0] |= {"loss": "infonce", "options": {}, "train": {"steps": 1, "batch": 4}}
    small |= {"queries": ["train", "sentences"], "relabel": "teacher"}
    out = tmp_path / "work"
    train(mini | {"check": {"force": True}}, out)
    place = out / "examples/train+sentences-fused"
    counts = json.loads((out / "examples/train+sentences-fused-relabelled/manifest.json").read_text())["counts"]
    plain = {each.query_id: each for each in open_examples(place)}
    moved = {each.query_id: each for each in open_examples(out / "examples/train+sentences-fused-relabelled")}
    changed = {name for name, each in moved.items() if each.positive != plain[name].positive}
    assert counts["relabelled"] == len(changed) > 0
    assert counts["relabel_rate"] == round(len(changed) / counts["presumed"], 4)
    assert all(name.startswith("sentence:") for name in changed), "a judged positive was replaced"
    ws = Workspace(card_of(mini), out)
    dev = read_training(Lessons(ws, "small", ws.card.students["small"]).queries).dev
    assert not changed & dev
    assert counts["presumed"] == sum(name.startswith("sentence:") for name in moved.keys() - dev)
    inputs = [json.loads((out / f"students/{arm}-seed1/manifest.json").read_text())["inputs"]["material"]
              for arm in ("small", "small.control")]  # fmt: skip
    assert inputs[0] != inputs[1]
    assert (out / "checks/small").is_dir(), "who chooses the positives was not looked at"
