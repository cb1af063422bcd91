"""A round that mines with the wrong weights, or is not made again when it should, looks like any other round."""

from __future__ import annotations

import json
from copy import deepcopy

import pytest
from helpers_pipeline import card_of, planned, train

from rerankdistill.candidates.choose import Candidates
from rerankdistill.errors import CardError
from rerankdistill.pipeline import learning
from rerankdistill.pipeline.card import StageCard
from rerankdistill.pipeline.rounds import control_rounds


@pytest.fixture
def rounds(mini):
    """Two stages of two steps; before the second the student mines anew, where before BM25 alone did."""
    small = mini["students"]["small"]
    first = small["stages"][0] | {"train": {"steps": 2, "batch": 4}}
    small["stages"] = [first, deepcopy(first) | {"remine": True, "remine_depth": 6}]
    small["measure_before"] = False
    return mini | {"check": False, "mine": {"depth": 6, "indexes": ["bm25"]}}


def candidates(out, name):
    return {query_id: set(doc_ids) for query_id, doc_ids in Candidates.open(out / "candidates" / name).groups()}


def test_a_round_finds_what_the_first_lacked_and_everybody_mines_with_themselves(rounds, tmp_path):
    out = tmp_path / "work"
    wanted = planned(rounds, out, proof=False)
    heard = train(rounds, out)
    assert set(heard.ran) == wanted
    first = candidates(out, "train")
    found = {arm: candidates(out, f"train-{arm}-round2-seed1") for arm in ("small", "small.control")}
    for arm, lists in found.items():
        assert all(first[query_id] <= lists[query_id] for query_id in first)
        new = sum(len(lists[query_id] - first[query_id]) for query_id in lists)
        manifest = json.loads((out / f"candidates/train-{arm}-round2-seed1/manifest.json").read_text())
        assert manifest["counts"]["new"] == new > 0
        run = json.loads((out / f"runs/train/{arm}-round2-seed1/manifest.json").read_text())
        assert run["counts"]["queries"] == 40
    assert found["small"] != found["small.control"], "the control was handed another student's candidates"
    scored = json.loads((out / "scored/tiny-bi-train-small-round2-seed1/manifest.json").read_text())["counts"]
    assert scored["skipped"] > scored["scored"] > 0, "what the store had was scored again"
    assert not train(rounds, out).ran

    for stage in rounds["students"]["small"]["stages"]:
        stage["options"]["kl_div"]["tau_student"] = 0.2  # the control has no kl_div
    ran = set(train(rounds, out).ran)
    assert not {name for name in ran if "control" in name}
    assert {"vectors small-round2-seed1 · docs", "candidates train-small-round2-seed1", "student small (seed 1)"} <= ran
    rounds["students"]["small"]["stages"][1]["remine_keep"] = False
    wanted = planned(rounds, out, proof=False)
    assert set(train(rounds, out).ran) == wanted
    assert not {name for name in wanted if name.startswith(("vectors", "run", "stage 1"))}, "nobody searched anew"
    replaced = candidates(out, "train-small-round2-seed1")
    assert max(map(len, replaced.values())) <= 7, "six were found, one was judged"
    assert any(first[query_id] - replaced[query_id] for query_id in first)


def test_a_kill_between_two_rounds_costs_none_of_the_first(rounds, tmp_path, monkeypatch):
    rounds["students"]["small"]["control"] = "none"
    out, fit = tmp_path / "work", learning._fit

    def killed(*args):
        if args[-1].startswith("student small"):
            raise KeyboardInterrupt
        return fit(*args)

    monkeypatch.setattr(learning, "_fit", killed)
    with pytest.raises(KeyboardInterrupt):
        train(rounds, out)
    monkeypatch.setattr(learning, "_fit", fit)
    assert set(train(rounds, out).ran) == {"student small (seed 1)"}


@pytest.mark.parametrize("at", [0, 1])
def test_a_first_stage_has_nobody_to_mine_with_and_vectors_have_no_candidates(rounds, at):
    stages = rounds["students"]["small"]["stages"]
    stages[at] |= {"remine": True} if at == 0 else {"match": "minilm", "loss": "embed_cosine"}
    with pytest.raises(CardError, match="comes after another one"):
        card_of(rounds)


def test_a_student_of_pairs_mines_nothing(rounds, models, tmp_path):
    small = rounds["students"]["small"]
    small |= {"kind": "cross_encoder", "options": {"init": str(models / "cross")}}
    with pytest.raises(CardError, match="finds nothing itself"):
        train(rounds, tmp_path / "work")


def steps(stages):
    made = control_rounds([StageCard.model_validate(stage) for stage in stages], learning.labels_only)
    return [(stage.loss, stage.match, stage.remine, stage.train.steps) for stage in made]


def test_a_control_takes_as_many_steps_and_mines_as_often():
    match = {"match": "minilm", "loss": "embed_cosine", "train": {"steps": 5}}
    lists, again = {"train": {"steps": 7}}, {"train": {"steps": 11}, "remine": True, "remine_depth": 3}
    assert steps([match, lists, lists]) == [("infonce", "", False, 19)]
    assert steps([match, lists, again, lists, again]) == [
        ("infonce", "", False, 12),
        ("infonce", "", True, 18),
        ("infonce", "", True, 11),
    ]
    assert steps([match, again]) == [("infonce", "", False, 5), ("infonce", "", True, 11)]
