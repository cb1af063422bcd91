from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerankdistill.errors import CardError, DataError, RerankDistillWarning, ScaleError
from rerankdistill.examples.agreement import agreement_weights, ndcg
from rerankdistill.examples.build import ExampleOptions, build_examples, example_scale, fitted_of
from rerankdistill.examples.ensemble import apply, fuse, fused_scale
from rerankdistill.examples.table import Examples
from rerankdistill.types import Judgement, Query, Scale

lists = st.integers(2, 12).flatmap(
    lambda n: st.lists(st.lists(st.floats(-100, 100, width=32), min_size=n, max_size=n), min_size=1, max_size=4)
)


def test_two_members_by_hand():
    fused = fuse([[1.0, 3.0], [40.0, 20.0]], weights=[3, 1])
    np.testing.assert_allclose(fused.scores, [0.75 * -1 + 0.25 * 1, 0.75 * 1 - 0.25 * 1])
    assert fused.means == (2, 30)
    assert fused.stds == (1, 10)
    np.testing.assert_allclose(fuse([[1.0, 3.0], [5.0, 2.0]], "raw", scales=[Scale.LOGIT] * 2).scores, [3, 2.5])


@given(lists)
def test_other_documents_land_on_the_scale_of_the_list(members):
    fused = fuse(members)
    again = apply([[member] for member in members], [fused.means], [fused.stds])
    np.testing.assert_array_equal(again[0], fused.scores)
    assert fused.scores.dtype == again.dtype == np.float32


@given(lists, st.floats(0.5, 50), st.floats(-100, 100))
def test_a_z_scored_ensemble_does_not_mind_a_members_unit(members, stretch, shift):
    if any(0 < np.std(member) < 0.1 for member in members):
        return
    other = [np.array(members[0]) * stretch + shift, *members[1:]]
    np.testing.assert_allclose(fuse(other).scores, fuse(members).scores, atol=1e-4)


def test_a_document_that_one_member_lacks_gets_the_mean_of_the_others_or_nothing():
    members = [[1.0, 3.0, np.nan], [10.0, 20.0, 30.0]]
    with pytest.warns(RerankDistillWarning, match="1 documents .* mean of those"):
        fused = fuse(members)
    assert fused.scores[2] == pytest.approx(np.sqrt(1.5))
    with pytest.warns(RerankDistillWarning, match="not scored"):
        assert np.isnan(fuse(members, missing="drop").scores[2])
    with pytest.warns(RerankDistillWarning, match="not scored"):
        assert np.isnan(fuse(members, "raw", scales=[Scale.LOGIT] * 2).scores[2])


def test_a_member_that_scored_nothing_of_a_list_stays_out_of_its_batch_too():
    with pytest.warns(RerankDistillWarning):
        fused = fuse([[np.nan, np.nan], [1.0, 3.0]])
    np.testing.assert_allclose(fused.scores, [-1, 1])
    np.testing.assert_allclose(apply([[[7.0]], [[5.0]]], [fused.means], [fused.stds]), [[3]])


def test_a_constant_member_says_nothing_anywhere():
    fused = fuse([[4.0, 4.0], [1.0, 3.0]])
    np.testing.assert_allclose(fused.scores, [-0.5, 0.5])
    np.testing.assert_allclose(apply([[[9.0]], [[2.0]]], [fused.means], [fused.stds]), [[0]])


def test_raw_scores_of_different_scales_are_never_mixed():
    with pytest.raises(ScaleError, match="different scales"):
        fuse([[1.0, 2.0], [3.0, 4.0]], "raw", scales=[Scale.LOGIT, Scale.LEXICAL])
    with pytest.raises(ScaleError, match="known to be equal"):
        fuse([[1.0, 2.0], [3.0, 4.0]], "raw")
    assert fused_scale([Scale.LOGIT, Scale.LEXICAL], "zscore") is Scale.ZSCORE
    assert fused_scale([Scale.LOGIT, Scale.LOGIT], "raw") is Scale.LOGIT


def test_standardising_does_not_launder_ranks_into_values():
    with pytest.raises(ScaleError, match="rank_to_score"):
        fused_scale([Scale.LOGIT, Scale.RANK], "zscore")
    assert fused_scale([Scale.RANK], "raw") is Scale.RANK


@pytest.mark.parametrize("members", [[], [[1.0, 2.0], [1.0]], [[[1.0]]]])
def test_members_that_do_not_score_the_same_list_are_refused(members):
    with pytest.raises(DataError, match="same list"):
        fuse(members)


@pytest.mark.parametrize("weights", [[1], [1, 0], [1, -1], [1, float("nan")]])
def test_wrong_weights_are_refused(weights):
    with pytest.raises(CardError, match="weights"):
        fuse([[1.0, 2.0], [1.0, 3.0]], weights=weights)


def test_statistics_of_another_ensemble_are_refused():
    with pytest.raises(DataError, match="do not fit"):
        apply([[[1.0]], [[2.0]]], [[0.0]], [[1.0]])


def test_reciprocal_rank_fusion_by_hand():
    fused = fuse([[9.0, 7.0, 1.0], [0.1, 0.3, 0.2]], "rrf", scales=[Scale.LOGIT, Scale.SIMILARITY])
    want = [(1 / 61 + 1 / 63) / 2, (1 / 62 + 1 / 61) / 2, (1 / 63 + 1 / 62) / 2]
    np.testing.assert_allclose(fused.scores, want, rtol=1e-6)
    tied = fuse([[5.0, 5.0, 1.0]], "rrf").scores
    np.testing.assert_allclose(tied, [1 / 61.5, 1 / 61.5, 1 / 63], rtol=1e-6)
    heavy = fuse([[2.0, 1.0], [1.0, 2.0]], "rrf", weights=[3, 1])
    np.testing.assert_allclose(heavy.scores, [0.75 / 61 + 0.25 / 62, 0.75 / 62 + 0.25 / 61], rtol=1e-6)


@given(lists)
def test_rrf_minds_the_order_alone(members):
    np.testing.assert_array_equal(fuse(members, "rrf").scores, fuse([4 * np.array(m) for m in members], "rrf").scores)


def test_a_document_that_a_member_lacks_gets_nothing_from_it_in_rrf():
    members = [[1.0, 3.0, np.nan], [10.0, 20.0, 30.0]]
    with pytest.warns(RerankDistillWarning, match="got nothing from those"):
        fused = fuse(members, "rrf")
    assert fused.scores[2] == pytest.approx(0.5 / 61)
    with pytest.warns(RerankDistillWarning, match="not scored"):
        assert np.isnan(fuse(members, "rrf", missing="drop").scores[2])
    with pytest.raises(DataError, match="outside it"):
        apply([[[1.0]], [[2.0]]], [[0.0, 0.0]], [[1.0, 1.0]], combine="rrf")


def test_orders_are_fused_by_rrf_alone_and_say_no_more_than_an_order():
    assert fused_scale([Scale.RANK, Scale.LOGIT], "rrf") is Scale.RANK
    assert fused_scale([Scale.LOGIT, Scale.LEXICAL], "rrf") is Scale.RANK
    for combine in ("raw", "zscore"):
        with pytest.raises(ScaleError) as refused:
            fused_scale([Scale.RANK, Scale.RANK], combine)
        assert "rrf" in refused.value.fix
        assert "rank_to_score" in refused.value.fix
    rrf = ExampleOptions(combine="rrf")
    assert example_scale([Scale.RANK, Scale.LOGIT], rrf) is Scale.RANK
    assert example_scale([Scale.RANK], rrf.model_copy(update={"rank_to_score": "depth"})) is Scale.GRADE


def test_ndcg_of_a_list_by_hand():
    assert ndcg([3.0, 2.0, 1.0], [1, 0, 0]) == 1
    assert ndcg([2.0, 3.0], [1, 0]) == pytest.approx(1 / np.log2(3))
    assert ndcg([5.0, 5.0], [1, 0]) == pytest.approx((1 + 1 / np.log2(3)) / 2), "a tie is what chance would give"
    assert ndcg([np.nan, 0.0], [1, 0]) == pytest.approx(1 / np.log2(3)), "what has no score comes last"
    assert ndcg([1.0, 2.0], [2, 1]) == pytest.approx((3 / np.log2(3) + 1) / (3 + 1 / np.log2(3)))
    assert np.isnan(ndcg([1.0, 2.0], [0, 0]))


def test_weights_by_agreement_by_hand():
    good, bad = [2.0, 1.0], [1.0, 2.0]
    half = 1 / np.log2(3)
    shares, count = agreement_weights([[good, good, good], [bad, good, bad]], [[1, 0], [1, 0], [0, 0]])
    np.testing.assert_allclose(shares[0], [1 / (1 + half), half / (1 + half)])
    np.testing.assert_allclose(shares[1], [0.5, 0.5])
    np.testing.assert_allclose(shares[2], (shares[0] + shares[1]) / 2, err_msg="without a label: the mean")
    assert count == 2
    with pytest.warns(RerankDistillWarning, match="no query has a labelled candidate"):
        shares, count = agreement_weights([[good], [bad]], [[0, 0]])
    np.testing.assert_array_equal(shares, [[0.5, 0.5]])
    assert count == 0


def test_examples_are_fused_with_each_querys_own_weights_and_dev_labels_stay_unseen():
    queries = [Query("a", ""), Query("b", ""), Query("c", "")]
    ids = {query.query_id: ["x", "y"] for query in queries}
    first = {query_id: np.array([2.0, 1.0]) for query_id in ids}
    second = {query_id: np.array([1.0, 2.0]) for query_id in ids}
    grades = [Judgement("a", "x", 1), Judgement("b", "y", 1)]
    options = ExampleOptions(weights_by="agreement", weights=(1.0, 3.0))

    def build(held):
        table = build_examples(queries, ids, [first, second], [Scale.LOGIT, Scale.LEXICAL], grades, options, held)
        return [each.scores[0] for each in Examples(table)], fitted_of(table)

    half = 1 / np.log2(3)
    at_a = (1 - 3 * half) / (1 + 3 * half)  # weights 1 and 3 times nDCG 1 and 0.63
    scores, fitted = build(())
    np.testing.assert_allclose(scores, [at_a, (half - 3) / (half + 3), -0.5], rtol=1e-5)
    assert fitted["weighted_queries"] == 2
    assert fitted["weight_0"] == pytest.approx(0.5)
    hidden, fitted = build({"b"})
    np.testing.assert_allclose(hidden, [at_a, at_a, at_a], rtol=1e-5)
    assert fitted["weight_0"] == pytest.approx(1 / (1 + half))
