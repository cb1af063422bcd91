from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerankdistill.errors import DataError, RerankDistillWarning, ScaleError
from rerankdistill.examples.rescale import check_scale, minmax, rank_to_score, sharpness, standardise
from rerankdistill.types import Scale

finite = st.floats(-1e4, 1e4, width=32)


def test_z_scores_by_hand():
    z, mean, std = standardise([1.0, 3.0, float("nan"), 5.0])
    assert mean == 3
    assert std == pytest.approx(math.sqrt(8 / 3))  # population, over the three that are there
    np.testing.assert_allclose(z, [-math.sqrt(1.5), 0, np.nan, math.sqrt(1.5)])


def test_min_max_by_hand():
    np.testing.assert_allclose(minmax([2.0, np.nan, 4.0, 3.0]), [0, np.nan, 1, 0.5])
    np.testing.assert_array_equal(minmax([7.0, 7.0]), [0, 0])


@pytest.mark.parametrize("value", [0.0, 0.1, 1e6, -3.3])
def test_constant_scores_become_zeros_and_not_rounding_noise(value):
    z, _, std = standardise([value] * 7)
    assert std == 0
    np.testing.assert_array_equal(z, np.zeros(7))


def test_a_list_that_nobody_scored_stays_unscored():
    z, mean, std = standardise([np.nan, np.nan])
    assert np.isnan([*z, mean, std]).all()
    assert np.isnan(minmax([np.nan])).all()


def test_an_infinite_score_is_refused():
    for rescale in (standardise, minmax):
        with pytest.raises(DataError, match="infinite"):
            rescale([1.0, np.inf])


@given(st.lists(finite, min_size=2, max_size=30), st.floats(0.1, 10), finite)
def test_z_scores_forget_unit_and_origin_and_keep_the_order(values, stretch, shift):
    z, _, std = standardise(values)
    if std < 1e-2:  # a shift of 1e4 would drown the differences
        return
    assert abs(z.mean()) < 1e-6
    assert z.std() == pytest.approx(1)
    np.testing.assert_allclose(standardise(np.array(values) * stretch + shift).z, z, atol=1e-4)
    order = np.argsort(values, kind="stable")
    assert (np.diff(z[order]) >= 0).all()


def test_ranks_become_numbers_only_by_name():
    np.testing.assert_allclose(rank_to_score([9, 7, 7, np.nan], "reciprocal"), [1, 0.4, 0.4, np.nan])
    np.testing.assert_allclose(rank_to_score([9, 7, 7, np.nan], "depth"), [3, 1.5, 1.5, np.nan])


def test_a_loss_on_values_refuses_ranks_with_reason_and_way_out():
    values = frozenset(Scale) - {Scale.RANK}
    check_scale(values, Scale.LOGIT, "kl_div")
    check_scale(frozenset(), Scale.RANK, "infonce")  # reads no teacher
    with pytest.raises(ScaleError, match="only gives ranks") as refused:
        check_scale(values, Scale.RANK, "kl_div")
    assert "ranknet" in refused.value.fix
    assert "rank_to_score" in refused.value.fix
    with pytest.raises(ScaleError, match="similarity") as refused:
        check_scale({Scale.LOGIT}, Scale.SIMILARITY)
    assert "logit" in refused.value.fix


def test_sharpness_by_hand():
    seen = sharpness([[math.log(3), 0.0], [1.0]], tau=1)
    assert seen["mean_max_probability"] == pytest.approx(0.75)
    assert seen["entropy"] == pytest.approx(-0.75 * math.log(0.75) - 0.25 * math.log(0.25))
    assert seen["lists"] == 1


def test_a_nearly_one_hot_teacher_is_told_to_raise_the_temperature():
    with pytest.warns(RerankDistillWarning, match="raise tau_teacher"):
        sharpness([[9.0, -5.0, -9.0]] * 3)
    sharpness([[9.0, -5.0, -9.0]] * 3, tau=10)


def test_a_flat_teacher_is_named():
    with pytest.warns(RerankDistillWarning, match="same score in 1 of 2 lists"):
        sharpness([[0.5, 0.5], [0.1, 0.2]])


def test_sharpness_of_nothing_is_nothing():
    seen = sharpness([[], [1.0], [np.nan, np.nan]])
    assert seen["lists"] == 0
    assert math.isnan(seen["entropy"])


def test_sharpness_does_not_overflow():
    with pytest.warns(RerankDistillWarning):
        assert sharpness([[800.0, -800.0]])["mean_max_probability"] == 1
