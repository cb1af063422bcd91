"""A bad teacher that is called good costs a training; a good one that is refused costs a teacher."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

sys.path.insert(0, str(Path(__file__).parent))
from teachers_to_check import Bench, bad_teachers, made_up_bench

from rerankdistill.collections.folder import FolderCollection
from rerankdistill.errors import DataError
from rerankdistill.evaluation.lists import kendall, mild_temperature, signs_over_chance, spearman
from rerankdistill.evaluation.teacher_check import Evidence, check
from rerankdistill.evaluation.teacher_verdict import verdict
from rerankdistill.types import Scale, View

BENCH = made_up_bench()
BAD = bad_teachers(BENCH)


def judged(rows, bench=BENCH, **changes):
    return verdict(check(bench.evidence(rows, **changes)))


def test_a_good_teacher_is_called_good_and_nothing_else():
    told = judged(BENCH.good)
    assert (told.grade, told.words, told.faults) == ("good", "good", ())


@pytest.mark.parametrize("name", BAD)
def test_a_teacher_that_teaches_nothing_is_named(name):
    rows, fault = BAD[name]
    told = judged(rows)
    assert told.grade == "do not distil", told.words
    assert told.names[0] == fault, told.words
    assert told.words.startswith("do not distil: it is ")


@pytest.mark.parametrize("name", ["constant", "reversed", "reversed on half", "one-hot", "length", "the student"])
def test_most_of_it_is_seen_without_a_single_label(name):
    rows, fault = BAD[name]
    told = judged(rows, judgements={}, student=BENCH.student if name == "the student" else {}, first=BENCH.good)
    assert told.names[0] == fault, told.words


def test_without_labels_chance_is_only_suspected_and_good_is_not_said():
    rows, _ = BAD["random"]
    assert judged(rows, judgements={}).names == ("perhaps random", "unjudged")
    told = judged(BENCH.good, judgements={})
    assert (told.grade, told.names) == ("usable", ("unjudged",))


def test_how_many_queries_are_reversed_is_said():
    rows = BENCH.every(lambda q, n: BENCH.good[q] * (-1 if n % 10 < 3 else 1))
    told = judged(rows)
    assert told.names[0] == "reversed in part"
    (share,) = (int(word) for word in told.words.split() if word.isdigit() and int(word) <= 100)
    assert 24 <= share <= 38


def test_a_weak_teacher_is_weak_and_not_reversed():
    generator = np.random.default_rng(0)
    rows = BENCH.every(lambda q, n: BENCH.good[q] * 0.5 + generator.normal(size=len(BENCH.good[q])))
    assert judged(rows).names == ("below the student",) or judged(rows).grade == "good"
    told = judged(rows, student={})
    assert not {"random", "reversed", "reversed in part"} & set(told.names)


def test_a_teacher_below_the_student_says_both_figures():
    told = judged(BENCH.first, student=BENCH.good)
    assert told.names[0] == "below the student"
    assert "p < 0.001" in told.words
    assert judged(BENCH.first, student=BENCH.good, first=BENCH.good).names == (
        "below the student",
        "below the first stage",
    )


def test_every_fault_is_named_the_gravest_first():
    rows = {q: -row if n % 2 else row for n, (q, row) in enumerate(BAD["one-hot"][0].items())}
    told = judged({**rows, "q1": np.zeros(20)}, scale=Scale.RANK, student=BENCH.good)
    assert [fault.grave for fault in told.faults] == sorted((f.grave for f in told.faults), reverse=True)
    assert "ranks only" in told.names
    assert "ranknet" in told.words


def test_a_fused_teacher_with_the_student_in_it_is_no_copy():
    fused = {q: stats.zscore(BENCH.first[q]) + stats.zscore(BENCH.student[q]) for q in BENCH.doc_ids}
    assert "copy" not in judged(fused).names


def test_a_few_queries_condemn_nobody():
    small = made_up_bench(queries=6)
    for name, (rows, _) in bad_teachers(small).items():
        if name in ("random", "reversed", "reversed on half"):
            assert judged(rows, small).grade != "do not distil", name


def test_peaked_logits_are_told_the_temperature_that_helps():
    logits = {q: 40 * np.asarray(row) for q, row in BENCH.good.items()}
    told = judged(logits, scale=Scale.LOGIT)
    assert told.names == ("nearly one-hot",)
    tau = check(BENCH.evidence(logits, scale=Scale.LOGIT)).mild
    assert f"tau_teacher about {tau:g}" in told.words
    assert judged(logits, scale=Scale.LOGIT, tau=tau).grade == "good"
    assert judged(logits, scale=Scale.LEXICAL).grade == "good", "a scale without a unit is not taken at 1"


def test_asking_in_another_order_shows_what_the_order_decides():
    generator = np.random.default_rng(1)
    some = list(BENCH.doc_ids)[:8]
    same = {q: BENCH.good[q] + generator.normal(0, 0.01, 20) for q in some}
    assert check(BENCH.evidence(BENCH.good, again=same)).order_tau > 0.95
    assert judged(BENCH.good, again=same).grade == "good"
    other = {q: generator.normal(size=20) for q in some}
    assert judged(BENCH.good, again=other).names == ("unsteady",)
    assert judged(BENCH.good, flips=0.1).grade == "good"
    told = judged(BENCH.good, flips=0.67)
    assert told.names == ("unsteady",)
    assert "67 %" in told.words


def test_a_teacher_that_does_not_answer_teaches_the_order_it_was_given():
    """Its order may be good: it is the first stage's, in which an unread answer leaves the documents."""
    assert judged(BENCH.good, malformed=0.01).grade == "good"
    assert judged(BENCH.good, malformed=0.2).names == ("malformed answers",)
    assert judged(BENCH.good, malformed=0.995, unread=0.1).grade == "usable", "an order with one slip is an order"
    told = judged(BENCH.good, malformed=0.995, unread=0.9)
    assert (told.grade, told.names) == ("do not distil", ("unread",))


def test_gaps_and_ties_are_worth_a_word():
    gappy = {q: np.where(np.arange(20) % 5 == 0, np.nan, row) for q, row in BENCH.good.items()}
    findings = check(BENCH.evidence(gappy))
    assert findings.unanswered == pytest.approx(0.2)
    assert "gaps" in verdict(findings).names
    coarse = {q: np.where(row > 1.5, 1.0, 0.0) for q, row in BENCH.good.items()}
    assert "ties" in judged(coarse, student={}, first={}).names
    nothing = {q: np.full(20, np.nan) for q in BENCH.doc_ids}
    assert judged(nothing).names[0] == "no lists"


def test_agreement_between_teachers_is_kendalls():
    found = check(BENCH.evidence(BENCH.good, others={"first": BENCH.first, "nobody": {}}))
    by_hand = np.mean([stats.kendalltau(BENCH.good[q], BENCH.first[q]).statistic for q in BENCH.doc_ids])
    assert found.taus == {"first": pytest.approx(by_hand)}
    assert found.first_tau == pytest.approx(by_hand)


def test_chance_is_between_the_order_and_its_opposite_and_json_has_no_nan():
    found = check(BENCH.evidence(BENCH.good))
    assert found.ndcg_reversed < found.ndcg_chance < found.ndcg < found.ndcg_ideal == pytest.approx(1.0)
    json.dumps(found.as_dict(), allow_nan=False)
    json.dumps(check(BENCH.evidence(BAD["constant"][0])).as_dict(), allow_nan=False)


def test_rows_that_do_not_fit_are_refused():
    with pytest.raises(DataError, match="19 scores for 20 candidates"):
        check(BENCH.evidence({**BENCH.good, "q3": np.zeros(19)}))
    with pytest.raises(DataError, match="infinite"):
        check(BENCH.evidence({**BENCH.good, "q3": np.full(20, np.inf)}))
    with pytest.raises(DataError, match="no list"):
        check(replace(BENCH.evidence({}), doc_ids={}))


def test_a_student_measured_on_some_queries_is_compared_on_those():
    some = {q: BENCH.student[q] for q in list(BENCH.doc_ids)[:30]}
    part = check(BENCH.evidence(BENCH.good, student=some))
    alone = Evidence({q: BENCH.doc_ids[q] for q in some}, BENCH.good, Scale.ZSCORE, BENCH.judgements, student=some)
    assert part.over_student == check(alone).over_student
    assert part.judged == 60


scores = st.lists(st.one_of(st.floats(-1e6, 1e6), st.integers(-3, 3).map(float), st.just(math.nan)), max_size=12)


@settings(deadline=None, max_examples=150)
@given(st.lists(scores, min_size=1, max_size=6), st.sampled_from(list(Scale)), st.booleans())
def test_any_scores_get_a_verdict(rows, scale, labels):
    doc_ids = {f"q{n}": [f"d{m}" for m in range(len(row))] for n, row in enumerate(rows)}
    given_rows = {f"q{n}": row for n, row in enumerate(rows)}
    if not any(rows):
        return
    judgements = {q: {docs[0]: 1} for q, docs in doc_ids.items() if docs} if labels else {}
    lengths = {q: [float(m) for m in range(len(docs))] for q, docs in doc_ids.items()}
    evidence = Evidence(doc_ids, given_rows, scale, judgements, given_rows, lengths, lengths, given_rows)
    found = check(evidence)
    json.dumps(found.as_dict(), allow_nan=False)
    told = verdict(found)
    assert told.words
    assert (told.grade == "do not distil") == any(fault.grave for fault in told.faults)


pairs = st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=4, max_size=15)


@settings(deadline=None)
@given(pairs)
def test_rank_correlations_are_scipys(values):
    one, other = np.array(values, float).T
    for ours, theirs in ((kendall, stats.kendalltau), (spearman, stats.spearmanr)):
        found = ours(one, other)
        if len(set(one)) < 2 or len(set(other)) < 2:
            assert found is None
        else:
            assert found == pytest.approx(float(theirs(one, other).statistic), abs=1e-9)


def test_an_agreement_beside_chance_is_what_shuffling_gives():
    generator = np.random.default_rng(0)
    labels = np.array([1, 1, 0, 2, 0, 0, 0, 0, 0, 0.0])
    draws = [signs_over_chance(generator.integers(0, 6, 10).astype(float), labels) for _ in range(4000)]
    assert np.mean(draws) == pytest.approx(0, abs=0.06)
    assert np.std(draws) == pytest.approx(1, abs=0.05)
    assert signs_over_chance(np.zeros(5), np.arange(5.0)) is None


def test_the_mild_temperature_gives_half():
    rows = [np.arange(6.0), np.arange(6.0) * 3]
    tau = mild_temperature(rows)
    highest = [np.exp(r / tau).max() / np.exp(r / tau).sum() for r in rows]
    assert np.mean(highest) == pytest.approx(0.5, abs=0.02)
    assert mild_temperature([np.array([1.0, 0.0])]) is None


@pytest.fixture(scope="module")
def dl19(data):
    """TREC-DL 2019: RepLLaMA-7B re-ranks BM25's top 20; its scores with noise stand for the student."""
    source = FolderCollection(data / "trec-dl19")
    runs = source.runs("test")
    found = {q: dict(hits) for q, hits in runs["rep_llama.run"].hits().items()}
    top = {q: hits for q, hits in runs["bm25"].top(20).hits().items() if sum(h.doc_id in found[q] for h in hits) > 10}
    top = {q: [hit for hit in hits if hit.doc_id in found[q]] for q, hits in top.items()}
    doc_ids = {q: [hit.doc_id for hit in hits] for q, hits in top.items()}
    good = {q: np.array([found[q][d] for d in docs]) for q, docs in doc_ids.items()}
    generator = np.random.default_rng(2)
    student = {q: row + generator.normal(0, 1.5 * row.std(), len(row)) for q, row in good.items()}
    lengths = {q: np.array([len(t) for t in source.texts(docs, View.TITLE_TEXT)], float) for q, docs in doc_ids.items()}
    grades: dict[str, dict[str, int]] = {}
    for judgement in source.judgements("test"):
        grades.setdefault(judgement.query_id, {})[judgement.doc_id] = judgement.grade
    first = {q: [hit.score for hit in hits] for q, hits in top.items()}
    return Bench(doc_ids, grades, good, first, student, lengths, Scale.SIMILARITY)


@pytest.mark.realdata
def test_repllama_on_trec_dl_2019_is_good_and_its_distortions_are_named(dl19):
    assert judged(dl19.good, dl19).words == "good"
    for name, (rows, fault) in bad_teachers(dl19).items():
        told = judged(rows, dl19)
        assert told.grade == "do not distil", (name, told.words)
        assert told.names[0] == fault, (name, told.words)


@pytest.mark.realdata
@pytest.mark.parametrize("name", ["colbert_partial", "splade_p_p_ensemble_distil", "open_ai_ada2"])
def test_published_rankers_are_not_called_nonsense(data, name):
    """They rank their own candidates; the labels and BM25's order of the same documents judge them."""
    source = FolderCollection(data / "trec-dl19")
    runs = source.runs("test")
    lists = runs[name].top(20).hits()
    doc_ids = {q: [hit.doc_id for hit in hits] for q, hits in lists.items() if len(hits) > 5}
    rows = {q: [hit.score for hit in lists[q]] for q in doc_ids}
    lengths = {q: [float(len(t)) for t in source.texts(docs, View.TITLE_TEXT)] for q, docs in doc_ids.items()}
    found = check(Evidence(doc_ids, rows, Scale.SIMILARITY, list(source.judgements("test")), lengths=lengths))
    assert not {"random", "reversed", "reversed in part", "length", "constant"} & set(verdict(found).names)
