"""Evaluation counts every judged query, breaks ties as trec_eval does, and leaves its arguments alone."""

from __future__ import annotations

import gzip
import json
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rerankdistill.errors import DataError, RerankDistillWarning, UsageError
from rerankdistill.evaluation.measure import DEFAULT_MEASURES, NAMES, check_measures, measure
from rerankdistill.types import Judgement, Run


def run_of(lists: dict[str, list[tuple[str, float]]], name: str = "run") -> Run:
    return Run.from_hits(name, lists)


def test_every_judged_query_counts_so_dropping_hard_queries_gains_nothing() -> None:
    grades = {"easy": {"a": 1}, "hard": {"b": 1}}
    whole = measure(run_of({"easy": [("a", 2.0)], "hard": [("x", 1.0)]}), grades)
    dropped = measure(run_of({"easy": [("a", 2.0)]}), grades)
    emptied = measure(run_of({"easy": [("a", 2.0)], "hard": []}), grades)
    assert whole.means == dropped.means == emptied.means
    assert dropped.means["ndcg@10"] == 0.5
    assert dropped.per_query["ndcg@10"] == {"easy": 1.0, "hard": 0.0}
    assert (whole.missing, dropped.missing, emptied.missing) == ((), ("hard",), ("hard",))


def test_queries_nobody_judged_do_not_dilute_the_mean() -> None:
    found = measure(run_of({"q": [("a", 1.0)], "unjudged": [("b", 1.0)]}), {"q": {"a": 1}})
    assert set(found.per_query["map"]) == {"q"}
    assert found.means["map"] == 1.0


def test_a_query_without_a_relevant_document_counts_as_zero_like_trec_eval() -> None:
    found = measure(run_of({"q": [("a", 1.0)], "none": [("a", 1.0)]}), {"q": {"a": 1}, "none": {"a": 0}})
    assert found.per_query["ndcg@10"] == {"q": 1.0, "none": 0.0}
    assert found.means["ndcg@10"] == 0.5


def test_query_ids_restrict_what_is_counted() -> None:
    grades = {"q": {"a": 1}, "other": {"b": 1}}
    assert measure(run_of({"q": [("a", 1.0)]}), grades, query_ids=["q", "unjudged"]).means["map"] == 1.0


def test_ties_go_to_the_higher_doc_id_not_to_the_order_in_the_run() -> None:
    tied = run_of({"q": [("a", 1.0), ("b", 1.0), ("c", 1.0), ("z", 0.5)]})
    assert measure(tied, {"q": {"c": 1}}, ("mrr",)).means["mrr"] == 1.0
    assert measure(tied, {"q": {"a": 1}}, ("mrr",)).means["mrr"] == pytest.approx(1 / 3)
    assert measure(tied, {"q": {"c": 1}}, ("mrr@1",)).means["mrr@1"] == 1.0, "ties are broken before the cut"


def test_scores_equal_in_single_precision_are_ties_as_in_trec_eval() -> None:
    run = run_of({"q": [("a", 2.0000001), ("b", 2.0)]})
    assert measure(run, {"q": {"b": 1}}, ("mrr",)).means["mrr"] == 1.0


def test_a_run_out_of_order_is_read_by_its_scores() -> None:
    run = Run(
        "shuffled", ("q",), np.array([0, 3]), ("a", "b", "c"), np.array([0, 1, 2], np.int32), np.array([1.0, 3.0, 2.0])
    )
    assert measure(run, {"q": {"b": 1}}, ("mrr",)).means["mrr"] == 1.0


def test_the_callers_run_and_judgements_are_unchanged() -> None:
    grades = {"q": {"a": 1, "b": 0}, "missing": {"a": 2}}
    run = run_of({"q": [("b", 1.0), ("a", 1.0)], "unjudged": [("c", 1.0)]})
    before = (run.query_ids, run.offsets.copy(), run.vocabulary, run.codes.copy(), run.scores.copy())
    measure(run, grades)
    assert grades == {"q": {"a": 1, "b": 0}, "missing": {"a": 2}}
    assert (run.query_ids, run.vocabulary) == (before[0], before[2])
    for now, then in zip((run.offsets, run.codes, run.scores), (before[1], before[3], before[4]), strict=True):
        assert np.array_equal(now, then)


def test_a_small_evaluation_does_not_leave_the_process_on_one_thread() -> None:
    import numba

    before = numba.get_num_threads()
    measure(run_of({"q": [("a", 1.0)]}), {"q": {"a": 1}})
    assert numba.get_num_threads() == before


def test_a_relevance_level_moves_what_counts_as_relevant() -> None:
    run = run_of({"q": [("barely", 2.0), ("fully", 1.0)]})
    found = measure(run, {"q": {"barely": 1, "fully": 2}}, ("mrr@10", "mrr@10-l2"))
    assert found.means == {"mrr@10": 1.0, "mrr@10-l2": 0.5}


def test_ndcg_gains_are_the_grades_themselves() -> None:
    run = run_of({"q": [("one", 2.0), ("three", 1.0)]})
    ideal = 3 + 1 / math.log2(3)
    found = measure(run, [Judgement("q", "one", 1), Judgement("q", "three", 3)], ("ndcg@10",))
    assert found.means["ndcg@10"] == pytest.approx((1 + 3 / math.log2(3)) / ideal)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("nDCG@10", "'ndcg@10'"),
        ("ndgc@10", "'ndcg@10'"),
        ("ndcg_cut_10", "'ndcg@10'"),
        ("recip_rank", "'mrr'"),
        ("P_10", "'precision@10'"),
        ("RR@10-l2", "'mrr@10-l2'"),
        ("rbp", "'rbp.95'"),
        ("ndcg@0", "'ndcg'"),
        ("beauty", "one of hits"),
    ],
)
def test_an_unknown_measure_says_what_was_meant(name: str, hint: str) -> None:
    with pytest.raises(UsageError, match=hint) as caught:
        measure(run_of({"q": [("a", 1.0)]}), {"q": {"a": 1}}, (name,))
    assert repr(name) in str(caught.value)


def test_every_measure_that_is_let_through_exists_in_ranx() -> None:
    from ranx.metrics import metric_switch

    for name in NAMES:
        assert callable(metric_switch(name))
        assert check_measures(["rbp.95" if name == "rbp" else f"{name}-l2"]) is None
    assert check_measures(DEFAULT_MEASURES) is None
    assert check_measures(["ndcg@10", "recall@100-l2"]) == 100


@pytest.mark.parametrize(
    ("run", "judgements", "words"),
    [
        (run_of({"q": [("a", math.nan)]}), {"q": {"a": 1}}, "not a number"),
        (run_of({"q": [("a", 1.0), ("a", 0.5)]}), {"q": {"a": 1}}, "listed twice"),
        (run_of({"q": [("a", 1.0)]}), {}, "no judged query"),
        (run_of({"q": [("a", 1.0)]}), [Judgement("q", "a", 1), Judgement("q", "a", 0)], "two grades"),
    ],
)
def test_bad_input_is_refused(run: Run, judgements: object, words: str) -> None:
    with pytest.raises(DataError, match=words):
        measure(run, judgements)  # type: ignore[arg-type]


def test_a_run_about_other_queries_warns_instead_of_reporting_a_silent_zero() -> None:
    with pytest.warns(RerankDistillWarning, match="none of the 1 judged queries"):
        assert measure(run_of({"elsewhere": [("a", 1.0)]}), {"q": {"a": 1}}).means["map"] == 0.0


def plain(order: list[str], grades: dict[str, int]) -> dict[str, float]:
    """The measures in twenty lines of plain Python."""
    relevant = {doc for doc, grade in grades.items() if grade > 0}
    gains = [max(grades.get(doc, 0), 0) for doc in order]
    ideal = sorted((grade for grade in grades.values() if grade > 0), reverse=True)

    def dcg(values: list[int]) -> float:
        return sum(value / math.log2(rank + 2) for rank, value in enumerate(values[:10]))

    first = next((rank for rank, doc in enumerate(order[:10], 1) if doc in relevant), None)
    hits = [rank for rank, doc in enumerate(order, 1) if doc in relevant]
    count = max(len(relevant), 1)
    return {
        "ndcg@10": dcg(gains) / dcg(ideal) if ideal else 0.0,
        "mrr@10": 1 / first if first else 0.0,
        "map": sum((n + 1) / rank for n, rank in enumerate(hits)) / count,
        "recall@100": len([rank for rank in hits if rank <= 100]) / count,
        "recall@3": len([rank for rank in hits if rank <= 3]) / count,
    }


docs = st.integers(0, 25).map(lambda n: f"d{n}")
lists = st.dictionaries(docs, st.sampled_from([0.0, -1.5, 2.0, 2.0000001, 7.0]), max_size=20)
grades = st.dictionaries(docs, st.integers(-1, 3), min_size=1, max_size=12)
queries = st.integers(0, 12).map(lambda n: f"q{n}")


@settings(deadline=None, max_examples=150)
@given(
    st.dictionaries(queries, lists, min_size=1, max_size=8), st.dictionaries(queries, grades, min_size=1, max_size=8)
)
@pytest.mark.filterwarnings("ignore::rerankdistill.errors.RerankDistillWarning")
def test_any_run_measures_as_in_plain_python(
    scored: dict[str, dict[str, float]], judged: dict[str, dict[str, int]]
) -> None:
    run = run_of({query_id: list(found.items()) for query_id, found in scored.items()})
    found = measure(run, judged, ("ndcg@10", "mrr@10", "map", "recall@100", "recall@3"))
    for query_id, wanted in judged.items():
        single = {doc: float(np.float32(score)) for doc, score in scored.get(query_id, {}).items()}
        ranked = sorted(single.items(), key=lambda pair: (pair[1], pair[0]), reverse=True)
        for name, value in plain([doc for doc, _ in ranked], wanted).items():
            assert found.per_query[name][query_id] == pytest.approx(value, abs=1e-12), name
    for name, values in found.per_query.items():
        assert list(values) == list(judged)
        assert found.means[name] == pytest.approx(sum(values.values()) / len(judged))


@settings(deadline=None, max_examples=40)
@given(
    st.dictionaries(queries, lists, min_size=1, max_size=6), st.dictionaries(queries, grades, min_size=1, max_size=6)
)
@pytest.mark.filterwarnings("ignore::rerankdistill.errors.RerankDistillWarning")
def test_renaming_every_id_in_the_same_order_changes_no_number(
    scored: dict[str, dict[str, float]], judged: dict[str, dict[str, int]]
) -> None:
    def renamed(name: str) -> str:
        return f"é {name} /ü"

    run = run_of({query_id: list(found.items()) for query_id, found in scored.items()})
    other = run_of({renamed(q): [(renamed(d), s) for d, s in found.items()] for q, found in scored.items()})
    moved = {renamed(q): {renamed(d): g for d, g in found.items()} for q, found in judged.items()}
    a, b = measure(run, judged), measure(other, moved)
    assert a.means == b.means
    assert list(a.per_query["map"].values()) == list(b.per_query["map"].values())


def test_a_million_ranked_documents_take_seconds_not_minutes() -> None:
    from time import perf_counter

    generator, size, deep = np.random.default_rng(0), 1000, 1000
    names = tuple(f"d{n}" for n in range(5000))
    codes = np.concatenate([generator.permutation(5000)[:deep] for _ in range(size)]).astype(np.int32)
    scores = np.tile(np.arange(deep, 0, -1.0), size)
    run = Run("big", tuple(map(str, range(size))), np.arange(0, size * deep + 1, deep), names, codes, scores)
    judged = {str(n): {names[codes[n * deep + n % 20]]: 1} for n in range(size)}
    measure(run, dict(list(judged.items())[:20]))  # compiles
    start = perf_counter()
    found = measure(run, judged)
    assert perf_counter() - start < 5
    assert found.means["mrr@10"] == pytest.approx(sum(1 / n for n in range(1, 11)) / 20)


# ---------------------------------------------------------------------------------------------- judged collections


TREC_NAMES = {
    "ndcg@10": "ndcg_cut_10",
    "ndcg@100": "ndcg_cut_100",
    "ndcg": "ndcg",
    "map": "map",
    "map@20": "map_cut_20",
    "mrr": "recip_rank",
    "recall@100": "recall_100",
    "recall@1000": "recall_1000",
    "precision@10": "P_10",
    "r-precision": "Rprec",
    "bpref": "bpref",
    "hit_rate@10": "success_10",
}


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("results", "expected"), [("results.test.gz", "out.test.aq.gz"), ("results.trunc.gz", "out.test.aqc.gz")]
)
def test_trec_evals_own_sample_gives_trec_evals_own_figures(data: Path, trec: Any, results: str, expected: str) -> None:
    folder = data / "_eval-fixtures" / "trec_eval"
    official = {(name, query_id): value for name, query_id, value in trec.lines(folder / expected)}
    found = measure(trec.run(folder / results), trec.qrels(folder / "qrels.test.gz"), tuple(TREC_NAMES))
    for name, theirs in TREC_NAMES.items():
        assert f"{found.means[name]:.4f}" == official[theirs, "all"], name
        for query_id, value in found.per_query[name].items():
            assert f"{value:.4f}" == official[theirs, query_id], (name, query_id)


@pytest.mark.realdata
def test_published_bm25_candidates_of_trec_dl_2019_read_5058(data: Path, trec: Any) -> None:
    hits = {}
    with gzip.open(data / "trec-dl19" / "candidates.bm25.jsonl.gz", "rt", encoding="utf-8") as file:
        for line in file:
            record = json.loads(line)
            hits[record["qid"]] = [(doc["docid"], doc["score"]) for doc in record["docs"]]
    found = measure(Run.from_hits("bm25", hits), trec.qrels(data / "trec-dl19" / "qrels_full.trec.gz"))
    assert f"{found.means['ndcg@10']:.4f}" == "0.5058"
    assert len(found.per_query["ndcg@10"]) == 43


@pytest.fixture(scope="module")
def scifact(data: Path) -> tuple[Run, dict[str, dict[str, int]]]:
    """BM25 over scifact, made directly on the lexical statistics, and the test judgements."""
    from rerankdistill.lexical import Bm25Options, Lexical

    with gzip.open(data / "scifact" / "corpus.jsonl.gz", "rt", encoding="utf-8") as file:
        docs = [json.loads(line) for line in file]
    with gzip.open(data / "scifact" / "queries.jsonl.gz", "rt", encoding="utf-8") as file:
        texts = {record["_id"]: record["text"] for record in map(json.loads, file)}
    judged: dict[str, dict[str, int]] = {}
    (path,) = (data / "scifact" / "qrels").glob("test.tsv*")
    with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as file:
        for query_id, doc_id, grade in (line.split() for line in list(file)[1:]):
            judged.setdefault(query_id, {})[doc_id] = int(grade)
    lexical = Lexical.build([f"{doc['title']} {doc['text']}" for doc in docs], Bm25Options())
    found, scores = lexical.search([texts[query_id] for query_id in judged], 100)
    hits = {
        query_id: [(docs[number]["_id"], float(score)) for number, score in zip(*row, strict=True) if score > 0]
        for query_id, row in zip(judged, zip(found, scores, strict=True), strict=True)
    }
    return Run.from_hits("bm25", hits), judged


@pytest.mark.realdata
def test_permuting_the_judged_documents_drops_a_good_run_to_chance(
    scifact: tuple[Run, dict[str, dict[str, int]]],
) -> None:
    run, judged = scifact
    assert measure(run, judged, ("ndcg@10",)).means["ndcg@10"] > 0.67
    shuffled = list(judged.values())
    random.Random(1).shuffle(shuffled)
    chance = measure(run, dict(zip(judged, shuffled, strict=True)))
    assert chance.means["ndcg@10"] < 0.05
    assert chance.means["recall@100"] < 0.2


@pytest.mark.realdata
def test_a_copy_of_the_collection_with_renamed_ids_gives_the_same_numbers(
    scifact: tuple[Run, dict[str, dict[str, int]]],
) -> None:
    run, judged = scifact
    hits = {f"claim {q}": [(f"paper-{hit.doc_id}", hit.score) for hit in found] for q, found in run}
    moved = {f"claim {q}": {f"paper-{doc}": grade for doc, grade in docs.items()} for q, docs in judged.items()}
    assert measure(Run.from_hits("moved", hits), moved).means == measure(run, judged).means
