from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerankdistill.errors import CardError, DataError, RerankDistillWarning, ScaleError
from rerankdistill.examples.ensemble import apply, fuse, fused_scale
from rerankdistill.types import Scale

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
