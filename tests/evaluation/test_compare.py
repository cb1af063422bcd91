"""Significance: equal to scipy and to values worked by hand, corrected for the family, never NaN."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rerankdistill.errors import DataError, UsageError
from rerankdistill.evaluation.compare import (
    average_rows,
    compare,
    compare_two,
    holm,
    interval,
    randomisation_test,
    t_test,
)
from rerankdistill.types import Row


def row(name: str, values: list[float], **extra: object) -> Row:
    per_query = {"ndcg@10": {f"q{n}": value for n, value in enumerate(values)}}
    return Row(name, "student", "full collection", {"ndcg@10": float(np.mean(values))}, per_query, 2.0, extra)


def test_identical_systems_have_p_one_and_no_nan() -> None:
    found = compare([row("a", [0.1, 0.9, 0.0]), row("b", [0.1, 0.9, 0.0])], [("a", "b")])[0]
    assert (found.p, found.p_randomisation, found.p_corrected, found.difference) == (1.0, 1.0, 1.0, 0.0)
    assert (found.wins, found.ties, found.losses) == (0, 3, 0)
    assert not any(isinstance(value, float) and math.isnan(value) for value in found.as_dict().values())


def test_p_values_and_interval_equal_scipy() -> None:
    from scipy import stats

    generator = np.random.default_rng(3)
    a, b = generator.random(40), generator.random(40)
    delta = a - b
    official = stats.ttest_rel(a, b)
    assert t_test(delta) == pytest.approx(official.pvalue)
    assert interval(delta) == pytest.approx(tuple(official.confidence_interval(0.95)))
    drawn = stats.permutation_test(
        (a, b), lambda x, y: np.mean(x - y), permutation_type="samples", n_resamples=20_000, rng=1
    ).pvalue
    assert randomisation_test(delta, rounds=20_000) == pytest.approx(drawn, abs=0.015)


def test_few_queries_are_permuted_exactly() -> None:
    # |±3 ±2 ±1| >= 4 for +++ ++- --+ ---: four of the eight assignments
    assert randomisation_test(np.array([3.0, 2.0, -1.0])) == 4 / 8
    assert randomisation_test(np.array([1.0, 1.0, 1.0, 1.0, 1.0, 0.0])) == 2 / 32, "an unchanged query says nothing"


def test_t_test_by_hand() -> None:
    # mean 2, sd 1, n 3: t = 2 / (1 / sqrt 3) = 3.4641, two degrees of freedom: p = 1 - t / sqrt(t² + 2)
    t = 2 * math.sqrt(3)
    assert t_test(np.array([1.0, 2.0, 3.0])) == pytest.approx(1 - t / math.sqrt(t**2 + 2))


def test_randomisation_is_seeded_and_never_zero() -> None:
    delta = np.full(200, 0.1)
    assert randomisation_test(delta, rounds=10_000, seed=1) == 1 / 10_001
    mixed = np.random.default_rng(0).normal(0.1, 1, 100)
    assert randomisation_test(mixed, seed=5) == randomisation_test(mixed, seed=5)
    assert randomisation_test(mixed, seed=5) == pytest.approx(randomisation_test(mixed, seed=6), abs=0.02)


def test_a_null_difference_is_called_significant_five_times_in_a_hundred() -> None:
    generator = np.random.default_rng(7)
    samples = generator.normal(0, 1, (400, 50))
    assert 0.02 < np.mean([t_test(delta) < 0.05 for delta in samples]) < 0.09
    assert 0.02 < np.mean([randomisation_test(delta, rounds=400) < 0.05 for delta in samples]) < 0.09


def test_holm_by_hand() -> None:
    # sorted .01 .02 .03 .04 times 4 3 2 1 = .04 .06 .06 .04, never falling: .04 .06 .06 .06
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.7, 0.6]) == [1.0, 1.0]
    assert holm([]) == []


def test_the_family_is_every_pair_of_the_call_on_one_measure() -> None:
    rows = [row("base", [0.1, 0.2, 0.3, 0.1]), row("a", [0.2, 0.4, 0.5, 0.3]), row("b", [0.3, 0.1, 0.4, 0.2])]
    alone = compare(rows, [("a", "base")])[0]
    both = compare(rows, [("a", "base"), ("b", "base")])
    assert alone.p_corrected == alone.p
    assert [c.p_corrected for c in both] == holm([c.p for c in both])
    assert both[0].p_corrected == pytest.approx(2 * alone.p)
    assert [c.p_randomisation_corrected for c in both] == holm([c.p_randomisation for c in both])


def test_seeds_are_averaged_by_query_and_their_spread_is_told() -> None:
    rows = [row("base", [0.2, 0.2]), row("s", [0.2, 0.6]), row("s", [0.4, 0.8])]
    found = compare(rows, [("s", "base")])[0]
    assert found.difference == pytest.approx(0.3)
    assert (found.seeds, found.baseline_seeds, found.baseline_seed_std) == (2, 1, None)
    assert found.seed_std == pytest.approx(math.sqrt(0.02))  # of .4 and .6
    assert (found.wins, found.ties, found.losses) == (2, 0, 0)
    merged = average_rows(rows[1:])
    assert merged.per_query["ndcg@10"] == pytest.approx({"q0": 0.3, "q1": 0.7})
    assert merged.measures["ndcg@10"] == pytest.approx(0.5)
    assert merged.extra["seeds"] == 2
    assert merged.extra["seed_std"]["ndcg@10"] == pytest.approx(math.sqrt(0.02))
    assert average_rows(rows[:1]) is rows[0]


def test_one_query_has_no_interval_and_no_significance() -> None:
    found = compare_two({"q": 1.0}, {"q": 0.0})
    assert (found.low, found.high, found.p, found.p_randomisation) == (None, None, 1.0, 1.0)


def test_systems_measured_on_other_queries_are_refused() -> None:
    with pytest.raises(DataError, match="same queries"):
        compare_two({"q": 1.0}, {"p": 1.0})
    with pytest.raises(DataError, match="same queries"):
        average_rows([row("s", [1.0]), row("s", [1.0, 0.0])])


def test_an_unknown_row_is_named() -> None:
    with pytest.raises(UsageError, match=r"'b'.*\n.*one of: a"):
        compare([row("a", [1.0])], [("a", "b")])
    with pytest.raises(DataError, match="no map"):
        compare([row("a", [1.0]), row("b", [1.0])], [("a", "b")], ["map"])


values = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=30)


@settings(deadline=None, max_examples=60)
@given(values)
def test_any_two_systems_mirror_each_other(pairs: list[tuple[float, float]]) -> None:
    a = {str(n): x for n, (x, _) in enumerate(pairs)}
    b = {str(n): y for n, (_, y) in enumerate(pairs)}
    there, back = compare_two(a, b, rounds=300), compare_two(b, a, rounds=300)
    assert 0 <= there.p <= 1
    assert 0 < there.p_randomisation <= 1
    assert there.p == pytest.approx(back.p)
    assert there.difference == pytest.approx(-back.difference)
    assert (there.wins, there.losses) == (back.losses, back.wins)
    assert there.wins + there.ties + there.losses == len(pairs)
    if there.low is not None and there.high is not None:
        assert there.low <= there.difference <= there.high
