"""Calibration by hand-worked numbers, alone and inside the examples."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rerankdistill.errors import DataError, RerankDistillWarning, ScaleError
from rerankdistill.examples.build import ExampleOptions, build_examples, example_scale, fitted_of
from rerankdistill.examples.calibrate import (
    Moved,
    calibrated_scale,
    centred_logit,
    fit_temperature,
    percentile_bounds,
    zero_centred,
)
from rerankdistill.examples.ensemble import apply
from rerankdistill.examples.table import Examples
from rerankdistill.types import Judgement, Query, Scale

NAN = float("nan")


def test_percentiles_of_the_whole_data_set_and_not_of_each_list():
    assert percentile_bounds([np.arange(50), np.arange(50, 101)]) == (1, 99)
    assert percentile_bounds([[0.0, NAN, 10.0]], 0, 100) == (0, 10)
    moved = Moved(1, 98, cut=True)([50.0, 0.0, 100.0, NAN, 25.5])
    np.testing.assert_allclose(moved, [0.5, 0, 1, np.nan, 0.25])
    with pytest.raises(DataError, match="are both 3"):
        percentile_bounds([[3.0, 3.0]])
    with pytest.raises(DataError, match="no score"):
        percentile_bounds([[NAN]])


def test_two_logits_are_centred_on_zero_by_hand():
    np.testing.assert_array_equal(zero_centred([[3.0, 1.0], [-4.0, 2.0]]), [[1, -1], [-3, 3]])
    with pytest.raises(DataError, match="two logits"):
        zero_centred([1.0, 2.0])


@given(st.floats(-60, 60), st.floats(-30, 30))
def test_log_probability_alone_gives_the_centred_logit_back(true, false):
    score = np.float32(-np.logaddexp(0, false - true))  # as monoT5's scores are stored
    want = zero_centred([[true, false]])[0, 0]
    assert centred_logit([score])[0] == pytest.approx(want, abs=1e-3, rel=1e-3)


def test_log_odds_of_three_quarters_is_log_three():
    np.testing.assert_allclose(centred_logit([math.log(0.75), NAN, 0.0]), [math.log(3) / 2, np.nan, np.nan])
    with pytest.raises(DataError, match="above zero"):
        centred_logit([0.5])


def test_the_temperature_by_hand():
    """Three of four lists (1, 0) are labelled first: P(first) = 3/4 at beta = log 3."""
    lists, labels = [[1.0, 0.0]] * 4, [[1, 0]] * 3 + [[0, 1]]
    assert fit_temperature(lists, labels) == pytest.approx(1 / math.log(3), rel=1e-9)
    stretched = [[7.0, -13.0]] * 4  # twenty times the distance
    assert fit_temperature(stretched, labels) == pytest.approx(20 / math.log(3), rel=1e-9)


def test_lists_that_tell_nothing_do_not_move_the_temperature():
    lists, labels = [[1.0, 0.0]] * 4, [[1, 0]] * 3 + [[0, 1]]
    silent = [([5.0, 9.0], [0, 0]), ([NAN, 2.0], [0, 1]), ([NAN, 2.0, 3.0], [1, 0, 0]), ([4.0], [1])]
    got = fit_temperature([*lists, *(s for s, _ in silent)], [*labels, *(g for _, g in silent)])
    assert got == pytest.approx(1 / math.log(3))


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000))
def test_no_other_temperature_makes_the_labels_likelier(seed):
    chance = np.random.default_rng(seed)
    lists = [chance.normal(size=6) * 5 for _ in range(20)]
    labels = [np.eye(6)[chance.choice(6, p=np.exp(each / 8) / np.exp(each / 8).sum())] for each in lists]

    def loss(tau):
        return sum(np.log(np.exp(s / tau).sum()) - s[y.argmax()] / tau for s, y in zip(lists, labels, strict=True))

    try:
        tau = fit_temperature(lists, labels)
    except DataError:
        assert loss(1e6) < loss(100)
        return
    assert all(loss(tau) <= loss(tau * factor) + 1e-9 for factor in (0.5, 0.9, 1.1, 2))


def test_labels_that_allow_no_temperature_are_named():
    with pytest.raises(DataError, match="do not score above the mean"):
        fit_temperature([[1.0, 0.0]] * 2, [[1, 0], [0, 1]])
    with pytest.raises(DataError, match="nothing to fit"):
        fit_temperature([[1.0, 0.0]], [[0, 0]])
    with pytest.warns(RerankDistillWarning, match="first in every list"):
        assert fit_temperature([[1.0, 0.0]] * 3, [[1, 0]] * 3) == 1


def table(how, scores, scale=Scale.LOGIT, grades=(), held=(), **more):
    queries = [Query(f"q{at}", "") for at in range(len(scores))]
    candidates = {f"q{at}": [f"d{n}" for n in range(len(each))] for at, each in enumerate(scores)}
    member = {f"q{at}": np.asarray(each, np.float32) for at, each in enumerate(scores)}
    options = ExampleOptions(combine="raw", calibrate=how, **more)
    return build_examples(queries, candidates, [member], [scale], [Judgement(*g) for g in grades], options, held)


def test_examples_hold_the_calibrated_scores_and_what_was_fitted():
    raw = [[0.0, 10.0, 5.0], [20.0, 15.0, 5.0]]
    made = table("percentile", raw, percentiles=(0, 100))
    assert fitted_of(made) == {"percentile_low": 0, "percentile_high": 20}
    np.testing.assert_allclose([each.scores for each in Examples(made)], [[0, 0.5, 0.25], [1, 0.75, 0.25]])
    standard = Examples(table("zscore", raw))[0]
    np.testing.assert_allclose(standard.scores, [-math.sqrt(1.5), math.sqrt(1.5), 0], atol=1e-6)
    assert fitted_of(table("raw", raw)) == {}
    logprob = np.log([[0.75, 0.5]])
    np.testing.assert_allclose(
        Examples(table("two_logit", logprob, Scale.LOGPROB))[0].scores, [math.log(3) / 2, 0], atol=1e-6
    )


def test_dev_labels_do_not_decide_the_temperature():
    raw = [[1.0, 0.0]] * 6
    grades = [("q0", "d0", 1), ("q1", "d0", 1), ("q2", "d0", 1), ("q3", "d1", 1), ("q4", "d1", 1), ("q5", "d1", 1)]
    made = table("temperature", raw, grades=grades, held={"q4", "q5"})
    assert fitted_of(made)["temperature"] == pytest.approx(1 / math.log(3))
    np.testing.assert_allclose(Examples(made)[5].scores, [math.log(3), 0], rtol=1e-6)


@pytest.mark.parametrize("how", ["zscore", "temperature"])
@pytest.mark.parametrize("combine", ["raw", "zscore"])
def test_other_documents_of_a_batch_land_on_the_calibrated_scale_too(how, combine):
    members = [np.array([1.0, 4.0, 2.0]), np.array([3.0, 9.0, 4.5])]
    grades = [Judgement(q, d, 1) for q, d in (("a", "x"), ("b", "x"), ("b", "y"))]
    options = ExampleOptions(combine=combine, calibrate=how)
    scores = [{"a": each, "b": each[::-1].copy()} for each in members]
    ids = {"a": ["x", "y", "z"], "b": ["x", "y", "z"]}
    grades[0] = Judgement("a", "y", 1)
    made = Examples(build_examples([Query("a", ""), Query("b", "")], ids, scores, [Scale.LOGIT] * 2, grades, options))
    for one in made:
        rows = [each[one.query_id][None] for each in scores]
        again = apply(rows, [one.means], [one.stds], combine=combine)
        np.testing.assert_allclose(again[0], one.scores, atol=1e-5)


def test_scales_after_calibration_and_what_cannot_be():
    assert calibrated_scale(Scale.LOGIT, "raw") is Scale.LOGIT
    assert calibrated_scale(Scale.LOGIT, "temperature") is Scale.LOGIT
    assert calibrated_scale(Scale.LEXICAL, "percentile") is Scale.GRADE
    assert calibrated_scale(Scale.SIMILARITY, "zscore") is Scale.ZSCORE
    assert calibrated_scale(Scale.LOGPROB, "two_logit") is Scale.LOGIT
    with pytest.raises(ScaleError, match="only gives an order") as refused:
        calibrated_scale(Scale.RANK, "percentile")
    assert "rank_to_score" in refused.value.fix
    with pytest.raises(ScaleError, match="log P"):
        calibrated_scale(Scale.LOGIT, "two_logit")
    ranks = ExampleOptions(combine="raw", rank_to_score="depth", calibrate="percentile")
    assert example_scale([Scale.RANK], ranks) is Scale.GRADE
    with pytest.raises(ScaleError, match="different scales"):
        example_scale([Scale.LOGPROB, Scale.LEXICAL], ExampleOptions(combine="raw", calibrate="temperature"))


def test_examples_made_before_there_was_calibration_stay_fresh():
    old = {"combine", "weights", "missing", "rank_to_score", "pseudo_positive", "denoise"}
    assert set(ExampleOptions().model_dump(mode="json")) == old
    assert set(ExampleOptions(calibrate="zscore").model_dump(mode="json")) == {*old, "calibrate"}
    assert set(ExampleOptions(weights_by="agreement").model_dump(mode="json")) == {*old, "weights_by"}
