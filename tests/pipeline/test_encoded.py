"""Students that make something else of a text than one vector: their index, its fusion, candidates in their order."""

from __future__ import annotations

import numpy as np
import pytest
from helpers_pipeline import card_of, evaluate, figures, planned

from rerankdistill import representations
from rerankdistill.errors import CardError
from rerankdistill.pipeline import verbs
from rerankdistill.pipeline.step import Quiet
from rerankdistill.runs.store import open_run

OPTIONS = {"late_interaction": {"dimension": 16}, "sparse": {"threshold": 1.0}}
INDEX = {"late_interaction": "maxsim", "sparse": "sparse"}


@pytest.fixture(params=list(OPTIONS))
def encoded(request, mini):
    small = mini["students"]["small"]
    small["kind"] = request.param
    small["options"] |= OPTIONS[request.param]
    small["stages"][0]["options"] = {"kl_div": {"tau_student": 0.5}}
    return mini


def test_it_walks_to_its_report_and_is_fresh_the_second_time(encoded, tmp_path):
    kind = encoded["students"]["small"]["kind"]
    _, (report,) = evaluate({**encoded, "seeds": [1, 2]}, tmp_path / "work")
    rows = {row["name"]: row for row in report["rows"]}
    assert {"small", "small before", "small control", "bm25 + small", "bm25 + small control"} <= rows.keys()
    home = tmp_path / "work"
    for name in ("small-seed1", "small-seed2", "small.before", "small.control-seed1"):
        assert (home / f"indexes/{INDEX[kind]}-{name}").is_dir()
    assert not list((home / "partial").glob("*")), "shards are gone when the index is there"
    assert rows["small"]["index_bytes"] > 1000
    assert rows["small"]["latency_ms"] > 0
    assert rows["bm25 + small"]["latency_ms"] > rows["small"]["latency_ms"]
    assert rows["small"]["parameters"] > 1000
    assert rows["small"]["fidelity"]["overlap@10"] > 0
    assert "vectors small-seed1 · docs" not in planned({**encoded, "seeds": [1, 2]}, home)
    assert not planned({**encoded, "seeds": [1, 2]}, home)


def test_its_candidates_are_reranked_as_its_index_would_order_them(encoded, tmp_path):
    encoded["evaluate"] = [{"depth": 50}, {"mode": "rerank", "rerank_depth": 50, "depth": 50}]
    encoded["students"]["small"]["control"] = "none"
    _, (found, ranked) = evaluate(encoded, tmp_path / "work")
    assert figures(ranked)["small"] > 0
    searched, reranked = (
        {query_id: {hit.doc_id: hit.score for hit in hits} for query_id, hits in open_run(path).top(50)}
        for path in (tmp_path / "work/runs" / name / "small-seed1" for name in ("test", "test-rerank"))
    )
    shared = [(q, d) for q in searched for d in searched[q].keys() & reranked[q].keys()]
    assert len(shared) > 50
    one, other = ([found[q][d] for q, d in shared] for found in (searched, reranked))
    np.testing.assert_allclose(one, other, rtol=5e-3, atol=1e-3)
    assert figures(found).keys() == figures(ranked).keys()


class Killed(Exception):
    """What a test raises where a process would die."""


def test_a_killed_encoding_goes_on_where_it_was(encoded, tmp_path, monkeypatch):
    monkeypatch.setattr("rerankdistill.pipeline.vectors.SHARD", 16)
    encoded["students"]["small"] |= {"control": "none", "measure_before": False}
    save, written, most = representations.save, [], 2

    def counted(folder, content):
        if folder.name.startswith("."):  # an index that is being written, which keeps rows as well
            return save(folder, content)
        if len(written) == most:
            raise Killed
        written.append(folder.name)
        return save(folder, content)

    monkeypatch.setattr(representations, "save", counted)
    with pytest.raises(Killed):
        evaluate(encoded, tmp_path / "work")
    most = None
    evaluate(encoded, tmp_path / "work")
    assert written[:5] == [f"{number:06d}.part" for number in range(5)]
    monkeypatch.setattr(representations, "save", save)
    evaluate(encoded, tmp_path / "calm")
    one, other = (
        {path.name: path.read_bytes() for path in next((tmp_path / work / "indexes").glob("*-small-seed1")).iterdir()}
        for work in ("work", "calm")
    )
    del one["manifest.json"], other["manifest.json"]
    assert one == other


def test_the_snippet_of_its_model_card_runs(encoded, tmp_path):
    encoded["students"]["small"] |= {"control": "none"}
    verbs.train(card_of(encoded), tmp_path / "work", Quiet())
    folder = tmp_path / "work/students/small-seed1"
    text = (folder / "README.md").read_text()
    code = text.partition("```python\n")[2].partition("```")[0]
    assert '"small"' in code
    names = {"queries": ["where is it"], "documents": ["here", "or there"]}
    exec(code.replace('"small"', repr(str(folder))), names)  # noqa: S102
    assert tuple(names["scores"].shape) == (1, 2)


def test_nothing_is_mined_or_matched_with_it(encoded, teachers, tmp_path):
    stage = encoded["students"]["small"]["stages"][0]
    encoded["students"]["small"]["stages"] = [stage, {**stage, "remine": True}]
    with pytest.raises(CardError, match="index of its own"):
        planned(encoded, tmp_path / "work")
    encoded["students"]["small"]["stages"] = [{"match": str(teachers / "bi.toml"), "loss": "embed_cosine"}, stage]
    with pytest.raises(CardError, match="no vector of a text"):
        planned(encoded, tmp_path / "work")


def test_a_late_interaction_student_teaches_a_bi_encoder(mini, tmp_path):
    """TCT-ColBERT with a ColBERT of one's own."""
    small = mini["students"]["small"]
    late = {**small, "kind": "late_interaction", "control": "none", "measure_before": False}
    taught = {**small, "teacher": "student:late", "control": "none", "measure_before": False}
    taught["stages"] = [{**small["stages"][0], "live": True, "options": {"kl_div": {"over": "batch"}}}]
    mini["students"] = {"late": late, "taught": taught}
    heard, (report,) = evaluate(mini, tmp_path / "work")
    assert {"late", "taught", "bm25 + late"} <= figures(report).keys()
    order = list(heard.ran)
    assert order.index("student late (seed 1)") < order.index("student taught (seed 1)")


@pytest.mark.parametrize("place", ["mine", "evaluate"])
def test_an_index_of_tokens_is_not_filled_with_texts(mini, tmp_path, place):
    if place == "mine":
        mini["mine"]["indexes"] = ["bm25", "maxsim"]
    else:
        mini["evaluate"] = [{"first_stage": "sparse"}]
    with pytest.raises(CardError, match="only the student"):
        planned(mini, tmp_path / "work")
