"""Test queries whose relevant documents were training positives stand apart."""

from __future__ import annotations

import pytest

from rerankdistill.evaluation.measure import Measured
from rerankdistill.evaluation.unseen import add_unseen, unseen_queries
from rerankdistill.types import Judgement

JUDGED = [
    Judgement("a", "d1", 1),
    Judgement("a", "d2", 0),
    Judgement("b", "d2", 1),
    Judgement("b", "d3", 2),
    Judgement("c", "d4", 1),
    Judgement("nothing-relevant", "d9", 0),
]


def test_one_relevant_document_met_in_training_is_enough_to_be_seen():
    assert unseen_queries(JUDGED, {"d3"}) == {"a", "c"}


def test_a_document_judged_not_relevant_does_not_make_a_query_seen():
    assert unseen_queries(JUDGED, {"d2"}) == {"a", "c"}


@pytest.mark.parametrize("positives", [set(), {"other"}, {"d1", "d2", "d4"}])
def test_nothing_is_told_apart_where_it_would_be_every_query_or_none(positives):
    assert not unseen_queries(JUDGED, positives)


def test_the_mean_is_over_the_unseen_queries_alone_and_the_rest_stays():
    found = Measured({"ndcg@10": 0.5}, {"ndcg@10": {"a": 1.0, "b": 0.0, "c": 0.5}}, ("b",))
    out = add_unseen(found, "ndcg@10", {"a", "c"})
    assert out.means == {"ndcg@10": 0.5, "ndcg@10 unseen": 0.75}
    assert out.per_query["ndcg@10"] == found.per_query["ndcg@10"]
    assert out.missing == ("b",)
    assert add_unseen(found, "ndcg@10", ()) is found
