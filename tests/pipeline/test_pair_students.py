"""Students that answer with a word walk the whole way, and whoever has their folder re-ranks with it."""

from __future__ import annotations

import json

import pytest
from helpers_pipeline import evaluate, figures
from mini_pipeline import VOCABULARY
from tiny_models import tiny_llama, tiny_t5

from rerankdistill.errors import UsageError
from rerankdistill.pipeline.card import StudentCard
from rerankdistill.pipeline.verbs import rerank_run
from rerankdistill.pipeline.weighing import choose_weight, weight_of
from rerankdistill.runs.fuse import zscore_sum
from rerankdistill.runs.store import open_run
from rerankdistill.types import Hit, Judgement, Run

TEMPLATE = "Query: {query} Document: {document} Relevant:"


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    home = tmp_path_factory.mktemp("words")
    return {"seq2seq": tiny_t5(home / "t5", VOCABULARY), "causal": tiny_llama(home / "llama", VOCABULARY)}


@pytest.fixture
def pairs(mini, words):
    """The miniature with one student of each kind; the second stage goes on from the first one's folder."""
    small = mini["students"].pop("small")
    mini["mine"]["encoder"] = small["options"]["init"]
    lora = {"causal": {"lora": {"r": 4}}, "seq2seq": {"decoder_layers": 1}}
    for kind, init in words.items():
        options = {"init": str(init), "template": TEMPLATE, "max_tokens": 64, **lora[kind]}
        stage = {"list_size": 3, "train": {"steps": 2, "batch": 2, "learning_rate": 1e-3}}
        stages = [stage, {**stage, "loss": "ranknet"}]
        mini["students"][kind] = {
            "kind": kind, "options": options, "stages": stages, "control": "none", "rerank_depth": 5}  # fmt: skip
    return mini


def test_each_is_trained_in_two_stages_measured_and_re_ranks_by_its_folder_alone(pairs, collection, tmp_path):
    _, (report,) = evaluate(pairs, tmp_path / "work")
    found = figures(report)
    for kind in ("seq2seq", "causal"):
        assert {kind, f"{kind} before", f"bm25 + {kind}"} <= found.keys()
        folder = tmp_path / "work/students" / f"{kind}-seed1"
        config = json.loads((folder / "config.json").read_text())
        assert config["rerankdistill"]["template"] == TEMPLATE
        assert not list(folder.glob("adapter*"))
        assert "ndcg@10" in (folder / "README.md").read_text().partition("## Measured")[2]
        runs = {name: open_run(tmp_path / "work/runs/test" / name) for name in ("bm25", f"{kind}-seed1")}
        again = rerank_run(runs["bm25"], str(folder), kind, str(collection), "test", 5, "cpu")
        assert lists(again) == lists(runs[f"{kind}-seed1"])
    with pytest.raises(UsageError, match="no re-ranker of kind 't5'"):
        rerank_run(runs["bm25"], str(folder), "t5", str(collection), "test", 5)


def test_what_a_re_ranker_counts_beside_its_first_stage_is_chosen_on_dev_alone(pairs, tmp_path):
    del pairs["students"]["seq2seq"]
    student = pairs["students"]["causal"] | {"stages": [pairs["students"]["causal"]["stages"][0]]}
    pairs["students"]["causal"] = student | {"fuse_weight": "dev"}
    _, (report,) = evaluate(pairs, tmp_path / "work")
    told = json.loads((tmp_path / "work/weights/causal-seed1/weight.json").read_text())
    assert told["tried"][str(told["weight"])] == max(told["tried"].values())
    dev, test = (open_run(tmp_path / f"work/runs/{name}/bm25") for name in ("train-dev", "test"))
    assert told["queries"] == len(dev.query_ids)
    assert not set(dev.query_ids) & set(test.query_ids)
    names = ("bm25", "causal-seed1", "causal-seed1+fused")
    first, second, fused = (open_run(tmp_path / "work/runs/test" / name) for name in names)
    assert lists(fused) == lists(zscore_sum([first, second], 5, [1.0, told["weight"]]))
    assert "bm25 + causal" in figures(report)


def test_a_weight_is_chosen_by_what_the_fusion_is_worth():
    judged = [Judgement("q", "b", 1)]
    first, better = ({"q": [Hit("a", x), Hit("b", y), Hit("c", 0.0)]} for x, y in ((2.0, 1.0), (1.5, 2.0)))
    one, other = Run.from_hits("one", first), Run.from_hits("other", better)
    assert choose_weight(one, other, judged, 10)[0] > 1
    assert choose_weight(other, one, judged, 10)[0] < 1
    assert choose_weight(one, other, [], 10)[0] == 1.0


@pytest.mark.parametrize("given", [0.0, 0.5])
def test_a_given_weight_is_used_as_it_is(given):
    card = StudentCard(kind="causal", fuse_weight=given)
    weight = weight_of(None, None, None, "x", card, None)  # type: ignore[arg-type]
    assert weight is not None
    assert (weight.read(), weight.needs) == (given, ())


def lists(run: Run) -> dict[str, list[str]]:
    return {query_id: [hit.doc_id for hit in hits] for query_id, hits in run.top(5)}
