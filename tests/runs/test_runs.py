"""Searching, re-ranking, fusing and storing runs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rerankdistill.errors import DamagedArtifact, DataError, MissingArtifact, UsageError
from rerankdistill.runs.fuse import reciprocal_rank, zscore_sum, zscores
from rerankdistill.runs.rerank import by_pairs, by_vectors, rerank
from rerankdistill.runs.search import search
from rerankdistill.runs.store import open_run, save_run
from rerankdistill.runs.trec import read_run
from rerankdistill.types import Query, Run

ids = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6)
hits = st.dictionaries(ids, st.floats(-1e6, 1e6, width=32), max_size=8)
runs = st.dictionaries(ids, hits, max_size=5).map(
    lambda found: Run.from_hits("r", {q: h.items() for q, h in found.items()})
)


class Answers:
    """An index that answers what it was told, and notes how it was asked."""

    accepts = "texts"

    def __init__(self, answers):
        self.answers, self.asked = answers, []

    def search(self, queries, depth):
        self.asked.append(len(queries))
        return [self.answers[query] for query in queries]


def test_search_goes_in_batches_keeps_empty_lists_and_orders_ties():
    index = Answers({"x": [("b", 1.0), ("a", 1.0), ("c", 2.0)], "y": [], "z": [("a", 0.5)]})
    done = []
    queries = [Query("3", "x"), Query("1", "y"), Query("2", "z")]
    run = search("r", index, queries, ["x", "y", "z"], depth=2, progress=done.append, batch=2)
    assert run.hits() == {"3": [("c", 2.0), ("a", 1.0)], "1": [], "2": [("a", 0.5)]}
    assert (index.asked, done, run.query_ids) == ([2, 1], [2, 1], ("3", "1", "2"))


def test_search_refuses_what_it_cannot_answer():
    index = Answers({"x": [("a", 1.0)], "n": [("a", float("nan"))]})
    with pytest.raises(UsageError, match="depth of 0"):
        search("r", index, [Query("1", "x")], ["x"], depth=0)
    with pytest.raises(DataError, match="0 texts for 1 queries"):
        search("r", index, [Query("1", "x")], [])
    with pytest.raises(DataError, match="'1' occurs twice"):
        search("r", index, [Query("1", "x"), Query("1", "x")], ["x", "x"])
    with pytest.raises(DataError, match="query '1', document 'a': the score is NaN"):
        search("r", index, [Query("1", "n")], ["n"])


def test_reranking_keeps_the_documents_and_takes_the_new_order():
    run = Run.from_hits("r", {"q": [("a", 3), ("b", 2), ("c", 1)], "none": [], "p": [("a", 1)]})
    new = {("q", "a"): 0.0, ("q", "b"): 5.0, ("q", "c"): 5.0, ("p", "a"): 1.0}
    calls = []

    def score(asked):
        calls.append(len(asked))
        return [[new[q, d] for d in doc_ids] for q, doc_ids in asked]

    out = rerank("new", run, score, batch=2)
    assert out.hits() == {"q": [("b", 5.0), ("c", 5.0), ("a", 0.0)], "none": [], "p": [("a", 1.0)]}
    assert (out.name, calls) == ("new", [2, 1])
    assert [hit.doc_id for hit in rerank("new", run, score, depth=2).hits()["q"]] == ["b", "a"]


def test_reranking_refuses_short_answers_and_nan():
    run = Run.from_hits("r", {"q": [("a", 3), ("b", 2)]})
    with pytest.raises(DataError, match="1 scores for 2 documents"):
        rerank("x", run, lambda asked: [[1.0]])
    with pytest.raises(DataError, match="document 'b'"):
        rerank("x", run, lambda asked: [[1.0, float("nan")]])


def test_pairs_reach_the_cross_encoder_in_step_with_their_scores():
    class Scorer:
        fingerprint = "f"

        def score(self, pairs):
            return np.asarray([len(q) * 100 + len(d) for q, d in pairs], np.float32)

    run = Run.from_hits("r", {"1": [("a", 2), ("b", 1)], "0": [], "2": [("a", 1)]})
    texts = {"a": "x", "b": "xxxx"}
    score = by_pairs(Scorer(), {"1": "qq", "2": "qqq", "0": ""}, lambda names: [texts[n] for n in names])
    assert rerank("x", run, score).hits() == {"1": [("b", 204), ("a", 201)], "0": [], "2": [("a", 301)]}
    with pytest.raises(DataError, match="'1'"):
        rerank("x", run, by_pairs(Scorer(), {}, lambda names: [texts[n] for n in names]))


def test_vectors_reach_their_queries_and_documents_by_id():
    queries, docs = np.array([[1, 0], [0, 1]], np.float32), np.array([[1, 2], [3, 4], [5, 6]], np.float32)
    score = by_vectors(["q0", "q1"], queries, ["a", "b", "c"], docs)
    run = Run.from_hits("r", {"q1": [("a", 9), ("c", 8)], "q0": [("b", 1)], "none": []} | {})
    with pytest.raises(DataError, match="'none'"):
        rerank("x", run, score)
    assert rerank("x", run.restricted(["q1", "q0"]), score).hits() == {"q1": [("c", 6), ("a", 2)], "q0": [("b", 3)]}


LEFT = Run.from_hits("l", {"q": [("a", 3.0), ("b", 2.0), ("c", 1.0)], "l only": [("a", 1.0)]})
RIGHT = Run.from_hits("r", {"q": [("b", 0.9), ("d", 0.1)], "r only": [("z", 5.0), ("y", 5.0)]})


def test_reciprocal_rank_worked_by_hand():
    fused = reciprocal_rank([LEFT, RIGHT]).hits()
    assert fused["q"] == [("b", 1 / 62 + 1 / 61), ("a", 1 / 61), ("d", 1 / 62), ("c", 1 / 63)]
    assert fused["l only"] == [("a", 1 / 61)]
    assert fused["r only"] == [("y", 1 / 61), ("z", 1 / 62)]
    assert [hit.doc_id for hit in reciprocal_rank([LEFT, RIGHT], k=0, depth=1).hits()["q"]] == ["a", "b"]


def test_zscore_sum_worked_by_hand():
    z = np.sqrt(1.5)  # of 3, 2, 1: mean 2, population deviation sqrt(2/3)
    fused = dict(zscore_sum([LEFT, RIGHT]).hits()["q"])
    assert fused == pytest.approx({"a": z - 1, "b": 0 + 1, "c": -z - 1, "d": -z - 1})
    assert [hit.doc_id for hit in zscore_sum([LEFT, RIGHT]).hits()["q"]] == ["b", "a", "c", "d"]
    weighted = dict(zscore_sum([LEFT, RIGHT], weights=[2, 0.5]).hits()["q"])
    assert weighted == pytest.approx({"a": 2 * z - 0.5, "b": 0.5, "c": -2 * z - 0.5, "d": -2 * z - 0.5})


def test_zscores_of_a_list_that_says_nothing_are_zero():
    assert zscores([]).tolist() == []
    assert zscores([0.1] * 7).tolist() == [0.0] * 7
    assert dict(zscore_sum([LEFT, RIGHT]).hits()["r only"]) == {"y": 0.0, "z": 0.0}


def test_complete_scores_are_standardised_over_the_union():
    asked_for = []

    def complete(asked):
        asked_for.extend(asked)
        return [[0.5 for _ in doc_ids] for _, doc_ids in asked]

    fused = dict(zscore_sum([LEFT, RIGHT], complete=[None, complete]).hits()["q"])
    right = zscores([0.9, 0.1, 0.5, 0.5])
    z = np.sqrt(1.5)
    assert fused == pytest.approx({"a": z + right[2], "b": right[0], "c": -z + right[3], "d": -z + right[1]})
    assert asked_for[0] == ("q", ["a", "c"])


def test_fusing_nothing_or_with_too_few_weights_is_refused():
    for wrong in (
        lambda: zscore_sum([]),
        lambda: zscore_sum([LEFT], depth=0),
        lambda: zscore_sum([LEFT], weights=[1, 2]),
    ):
        with pytest.raises(UsageError):
            wrong()


@given(st.lists(runs, min_size=1, max_size=3), st.integers(1, 9))
@settings(deadline=None)
def test_fusion_holds_the_union_of_the_heads_and_does_not_depend_on_scale(found, depth):
    union = {
        q: {hit.doc_id for run in found for hit in run.top(depth).hits().get(q, [])}
        for run in found
        for q in run.query_ids
    }
    for fused in (reciprocal_rank(found, depth=depth), zscore_sum(found, depth)):
        assert {q: {hit.doc_id for hit in hits} for q, hits in fused} == union
        assert all(hits == sorted(hits, key=lambda hit: (-hit.score, hit.doc_id)) for _, hits in fused)
    assert (
        reciprocal_rank(found, depth=depth).hits() == reciprocal_rank(found[::-1], depth=depth).hits() or len(found) > 2
    )


@given(runs)
@settings(deadline=None)
def test_a_run_survives_its_store_to_the_last_bit_with_its_empty_queries(tmp_path_factory, run):
    folder = tmp_path_factory.mktemp("run")
    save_run(folder, run)
    again = open_run(folder)
    assert (again.name, again.query_ids, again.hits()) == (run.name, run.query_ids, run.hits())
    assert again.codes.dtype == np.int32
    assert again.top(2).hits() == run.top(2).hits()


def test_a_stored_run_is_readable_by_others(tmp_path):
    import pyarrow.parquet as pq

    save_run(tmp_path, LEFT)
    assert pq.read_table(tmp_path / "run.parquet").to_pylist()[0] == {"query_id": "q", "doc_id": "a", "score": 3.0}
    assert read_run(tmp_path / "run.trec.gz").hits() == LEFT.hits()


def test_a_truncated_or_foreign_parquet_is_called_damaged(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pytest.raises(MissingArtifact):
        open_run(tmp_path)
    save_run(tmp_path, LEFT)
    path = tmp_path / "run.parquet"
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], whole[:-1], b""):
        path.write_bytes(content)
        with pytest.raises(DamagedArtifact, match="cannot be read"):
            open_run(tmp_path)
    pq.write_table(pa.table({"x": [1]}), path)
    with pytest.raises(DamagedArtifact, match="cannot be read"):
        open_run(tmp_path)


def test_a_large_run_takes_columns_and_not_dictionaries(tmp_path):
    names = [f"d{n}" for n in range(5000)]
    rng = np.random.default_rng(0)
    rows = {f"q{n}": list(zip(rng.choice(names, 500, replace=False), rng.random(500), strict=True)) for n in range(300)}
    index = Answers(rows)
    run = search("r", index, [Query(q, q) for q in rows], list(rows), depth=500)
    assert (len(run), run.codes.nbytes, run.scores.nbytes) == (150000, 600000, 1200000)
    save_run(tmp_path, run)
    again = open_run(tmp_path)
    assert (again.scores == run.scores).all()
    assert again._row(299) == run._row(299)
