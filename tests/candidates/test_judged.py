"""Nothing of the test may reach training, whatever the training data look like."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rerankdistill.candidates.choose import Candidates, choose
from rerankdistill.candidates.judged import add_judged, keep_out, normalise, refuse_test
from rerankdistill.errors import DataError
from rerankdistill.types import Candidate, Judgement, Query, Run

FOUND = Candidates.from_rows([Candidate("q1", "a", 1, "bm25 flat"), Candidate("q1", "b", 2, "bm25")])


def test_judged_documents_join_behind_and_known_ones_keep_their_rank() -> None:
    judged = [Judgement("q1", "b", 1), Judgement("q1", "x", 2), Judgement("q1", "y", 0), Judgement("q2", "z", 1)]
    assert list(add_judged(FOUND, judged).rows()) == [
        Candidate("q1", "a", 1, "bm25 flat"),
        Candidate("q1", "b", 2, "bm25 judged"),
        Candidate("q1", "x", 3, "judged"),
    ]
    with_zero = add_judged(FOUND, judged, min_grade=0, query_ids=["q1", "q2"])
    assert list(with_zero.groups()) == [("q1", ["a", "b", "x", "y"]), ("q2", ["z"])]


def test_same_text_under_another_id_is_still_the_test_query() -> None:
    train = [Query("t1", "  What IS a “fox”?"), Query("t2", "what is a hen"), Query("q1", "anything")]
    kept = keep_out(train, [Query("q1", "what is a fox")])
    assert [query.query_id for query in kept.survivors] == ["t2"]
    assert [query.query_id for query in kept.dropped] == ["t1", "q1"]
    judged = [Judgement("t1", "d", 1), Judgement("t2", "d", 1), Judgement("q1", "d", 1)]
    assert list(kept.judgements(judged)) == [Judgement("t2", "d", 1)]


def test_normalising_unites_spellings_and_keeps_different_questions_apart() -> None:
    assert normalise("Cafe\u0301—au lait!") == normalise("caf\u00e9 AU  lait")
    assert normalise("C++?") == normalise("c")
    assert normalise("??") != normalise("!!")
    assert normalise("fox 1") != normalise("fox 2")


def test_guard_names_the_queries_that_leaked() -> None:
    with pytest.raises(DataError, match="1 test queries are in the training data: 'q1'"):
        refuse_test(FOUND, ["q1", "q7"])
    with pytest.raises(DataError, match="'q7'"):
        refuse_test([Judgement("q7", "d", 1)], {"q7"})
    refuse_test(FOUND, ["q2"])


names = st.sampled_from(["1", "2", "3", "4", "5", "6"])
texts = st.sampled_from(["a fox", "A  fox!", "the hen", "The Hen", "who?", "ｗｈｏ", "dog", "cat"])
queries = st.lists(st.builds(Query, names, texts), max_size=6, unique_by=lambda query: query.query_id)
judgements = st.lists(st.builds(Judgement, names, st.sampled_from("abcd"), st.integers(0, 3)), max_size=12)


@settings(max_examples=60, deadline=None)
@given(train=queries, test=queries, judged=judgements, min_grade=st.integers(0, 2))
def test_no_test_query_and_no_test_judgement_gets_through(
    train: list[Query], test: list[Query], judged: list[Judgement], min_grade: int
) -> None:
    kept = keep_out(train, test)
    assert sorted(kept.survivors + kept.dropped) == sorted(train)
    survivors = [query.query_id for query in kept.survivors]
    everything = Run.from_hits("bm25", {query.query_id: [("a", 1.0)] for query in [*train, *test]})
    if not survivors:
        return
    candidates = choose([everything], 3, query_ids=survivors)
    training = add_judged(candidates, judged, min_grade=min_grade, query_ids=survivors)
    text_of = {query.query_id: query.text for query in train}
    forbidden = {normalise(query.text) for query in test}
    for query_id, _ in training.groups():
        assert query_id not in {query.query_id for query in test}
        assert normalise(text_of[query_id]) not in forbidden
    refuse_test(training, [query.query_id for query in test])
    refuse_test(list(kept.judgements(judged)), [query.query_id for query in test])


@settings(max_examples=60, deadline=None)
@given(train=queries, test=queries.filter(bool))
def test_guard_catches_whatever_was_not_kept_out(train: list[Query], test: list[Query]) -> None:
    leaky = Run.from_hits("bm25", {query.query_id: [("a", 1.0)] for query in [*train, *test]})
    with pytest.raises(DataError, match="in the training data"):
        refuse_test(choose([leaky], 3), [query.query_id for query in test])
