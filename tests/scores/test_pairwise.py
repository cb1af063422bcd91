"""Preferences: what is asked, in how many questions, and what follows from the answers."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llm_fake import FakeModel, teacher
from oracles import best_first, duel, group

from rerankdistill.errors import CardError
from rerankdistill.scores.kinds.pairwise import PairwiseOptions
from rerankdistill.scores.llm import preferences
from rerankdistill.scores.llm.preferences import Preferences, bradley_terry, play, win_rates
from rerankdistill.types import Scale

VALUES = [random.Random(seed).sample(range(100), 12) for seed in range(3)]
lists = st.lists(st.integers(0, 50), min_size=1, max_size=24)


def pairwise(model=None, scale="probability", **options):
    return teacher("pairwise", model or FakeModel(duel()), scale, **options)


def sigmoid(x):
    return np.exp(-np.logaddexp(0, -np.asarray(x, float)))


def run(strategy, values, *more):
    """Its end, and the pairs that it asked about, with a consistent judge."""
    table = Preferences(len(values))
    asked = []

    def ask(duels):
        asked.extend((each.first, each.second) for each in duels)
        return [float(sigmoid(values[each.first] - values[each.second])) for each in duels]

    return play([table], [strategy(table, *more)], ask)[0], asked


def full_sort(values):
    return sorted(range(len(values)), key=lambda place: (-values[place], place))


@settings(deadline=None)
@given(values=lists, top=st.integers(1, 24))
def test_heapsort_finds_the_top_of_a_full_sort(values, top):
    order, asked = run(preferences.heapsort, values, top)
    best = full_sort(values)[:top]
    assert order == best + sorted(set(range(len(values))) - set(best))
    n = len(values)
    assert len(asked) <= 2 * n + 2 * min(top, n) * max(math.log2(n), 1)
    assert len({frozenset(pair) for pair in asked}) == len(asked), "a pair was asked about twice"


@settings(deadline=None)
@given(values=lists, passes=st.integers(1, 24))
def test_sliding_decides_one_place_a_pass(values, passes):
    order, asked = run(preferences.sliding, values, passes)
    assert order[:passes] == full_sort(values)[:passes]
    assert sorted(order) == list(range(len(values)))
    assert len(asked) <= min(passes, len(values)) * (len(values) - 1)


def test_sorts_ask_far_fewer_than_all_pairs():
    values = random.Random(0).sample(range(1000), 100)
    assert len(run(preferences.heapsort, values, 10)[1]) < 300
    assert len(run(preferences.sliding, values, 1)[1]) == 99
    assert len(run(preferences.all_pairs, values)[1]) == 4950


@settings(deadline=None)
@given(count=st.integers(0, 30), opponents=st.sampled_from([2, 4, 6]), seed=st.integers())
def test_a_sample_gives_each_as_many_opponents_and_links_all(count, opponents, seed):
    places = list(range(count))
    random.Random(seed).shuffle(places)
    _, asked = run(preferences.sample, [0] * count, opponents, places)
    meets = {place: {b if a == place else a for a, b in asked if place in (a, b)} for place in range(count)}
    assert {len(each) for each in meets.values()} <= {min(opponents, max(count - 1, 0))}
    assert len(asked) == len({frozenset(pair) for pair in asked})
    linked, border = {0}, {0}
    while border:
        border = {far for place in border for far in meets.get(place, ())} - linked
        linked |= border
    assert count == 0 or linked == set(range(count))


def table_of(strengths, known=None):
    strengths = np.asarray(strengths, float)
    won = sigmoid(strengths[:, None] - strengths[None, :]).astype(np.float32)
    np.fill_diagonal(won, np.nan)
    return won if known is None else np.where(known, won, np.nan).astype(np.float32)


def test_bradley_terry_recovers_known_strengths():
    strengths = np.array([2.0, -1.0, 0.5, -1.5, 0.0])
    np.testing.assert_allclose(bradley_terry(table_of(strengths), 1e-6), strengths, atol=1e-3)
    ring = np.abs(np.subtract.outer(range(5), range(5))) % 3 == 1  # 0-1-2-3-4 and 0-4: one opponent on each side
    np.testing.assert_allclose(bradley_terry(table_of(strengths, ring), 1e-6), strengths, atol=1e-3)


def test_bradley_terry_is_finite_and_centred_where_one_wins_always():
    won = np.array([[np.nan, 1, 1], [0, np.nan, 1], [0, 0, np.nan]], np.float32)
    strengths = bradley_terry(won)
    assert np.isfinite(strengths).all()
    assert strengths[0] > strengths[1] > strengths[2]
    assert abs(float(strengths.sum())) < 1e-4
    assert abs(strengths[1]) < 1e-4


def test_bradley_terry_centres_each_linked_part_and_has_nothing_for_the_lonely():
    won = np.full((5, 5), np.nan, np.float32)
    won[0, 1], won[1, 0], won[2, 3], won[3, 2] = 0.9, 0.1, 0.6, 0.4
    strengths = bradley_terry(won, 1e-4)
    assert np.isnan(strengths[4])
    assert abs(strengths[0] + strengths[1]) < 1e-4
    assert abs(strengths[2] + strengths[3]) < 1e-4
    assert strengths[0] - strengths[1] == pytest.approx(math.log(9), abs=1e-2)
    assert bradley_terry(np.full((1, 1), np.nan, np.float32)).tolist() == [0]
    assert bradley_terry(np.empty((0, 0), np.float32)).tolist() == []


def test_win_rates_are_means_over_those_that_were_met():
    won = np.array([[np.nan, 0.8, np.nan], [0.2, np.nan, 0.4], [np.nan, 0.6, np.nan]], np.float32)
    np.testing.assert_allclose(win_rates(won), [0.8, 0.3, 0.6])
    lonely = win_rates(np.full((2, 2), np.nan, np.float32))
    assert np.isnan(lonely).all()
    assert win_rates(np.full((1, 1), np.nan, np.float32)).tolist() == [0.5]


def test_order_bias_cancels_in_both_orders_and_not_in_one():
    leaning = FakeModel(duel(bias=3.0))
    scores, details, _ = pairwise(leaning).judge([group([5, 5, 5])])[0]
    np.testing.assert_allclose(scores, 0.5, atol=1e-6)
    np.testing.assert_allclose(details[0][1:], 0.5, atol=1e-6)
    one = pairwise(leaning, both_orders=False).judge([group([5] * 8)])[0]
    assert np.ptp(one.scores) > 0.1
    rows = np.array([row[i + 1 :].mean() for i, row in enumerate(one.details[:-1])])
    assert rows.min() < 0.5 < rows.max(), "the coin must not always show the earlier document first"


@pytest.mark.parametrize("both", [True, False])
def test_preferences_are_kept_and_mirror_each_other(both):
    answer = pairwise(FakeModel(duel(0.1)), both_orders=both).judge([group([3, 9, 1])])[0]
    won = np.stack(answer.details)
    np.testing.assert_allclose(won[0, 1], sigmoid(-0.6), atol=1e-6)
    np.testing.assert_allclose(won + won.T, np.where(np.eye(3, dtype=bool), np.nan, 1), atol=1e-6)
    assert np.isnan(np.diag(won)).all()
    np.testing.assert_allclose(answer.scores, np.nanmean(won, 1), atol=1e-6)


@pytest.mark.parametrize("values", VALUES)
@pytest.mark.parametrize(
    ("scale", "options"),
    [
        ("probability", {}),
        ("probability", {"strategy": "sample", "opponents": 10}),
        ("logit", {"aggregate": "bradley_terry"}),
        ("rank", {"strategy": "heapsort", "top": 12}),
        ("rank", {"strategy": "sliding", "passes": 12}),
    ],
)
def test_every_strategy_puts_a_consistent_judges_order(values, scale, options):
    kind = pairwise(FakeModel(duel(0.1)), scale, **options)
    scores = kind.judge([group(values)])[0].scores
    assert kind.scale is Scale(scale)
    if options.get("strategy") != "sample":
        assert best_first(scores) == best_first(values)
    else:
        assert np.corrcoef(scores, values)[0, 1] > 0.9


@pytest.mark.parametrize("strategy", ["all", "sample", "heapsort", "sliding"])
def test_what_is_in_the_batch_does_not_matter(strategy):
    scale = "rank" if strategy in ("heapsort", "sliding") else "probability"
    groups = [group(values, str(at)) for at, values in enumerate([*VALUES, [4], [], [1, 2]])]
    kind = pairwise(scale=scale, strategy=strategy, both_orders=False)
    together, alone = kind.judge(groups), [kind.judge([each])[0] for each in groups]
    for a, b in zip(together, alone, strict=True):
        np.testing.assert_array_equal(a.scores, b.scores)
        assert len(a.details) == len(a.scores)
        for left, right in zip(a.details, b.details, strict=True):
            np.testing.assert_array_equal(left, right)


def test_sorts_of_many_lists_move_in_step():
    alone, together = FakeModel(duel()), FakeModel(duel())
    kind = pairwise(alone, "rank", strategy="heapsort", top=3)
    for values in VALUES:
        kind.judge([group(values)])
    pairwise(together, "rank", strategy="heapsort", top=3).judge([group(values) for values in VALUES])
    assert len(together.asked) == len(alone.asked)
    assert len(together.calls) < len(alone.calls) / 2


def test_comparisons_are_counted_and_share_query_and_first_passage():
    model = FakeModel(duel())
    kind = pairwise(model)
    kind.judge([group([1, 2, 3, 4])])
    assert (kind.usage["comparisons"], kind.usage["requests"], kind.usage["malformed"]) == (6, 12, 0)
    assert (kind.usage["both_ways"], kind.usage["flips"]) == (6, 0)
    assert len({ask.shared for ask in model.asked}) == 4
    assert len(model.calls) == 1


def test_a_pair_that_the_order_of_asking_decides_is_counted():
    kind = pairwise(FakeModel(lambda ask, option: 1.0 if option == PairwiseOptions().choices[0] else 0.0))
    kind.judge([group([1, 2, 3])])
    assert (kind.usage["both_ways"], kind.usage["flips"]) == (3, 3)


def test_a_choice_that_an_endpoint_leaves_out_was_never_made_and_silence_is_no_answer():
    def rule(ask, option):
        if "worth 7" in ask.user:
            return math.nan
        return duel()(ask, option) if option == " A" else math.nan

    kind = pairwise(FakeModel(rule, exact=False), both_orders=False)
    answer = kind.judge([group([5, 6, 7])])[0]
    assert answer.details[0][1] in (0, 1)
    assert np.isnan(answer.scores).tolist() == [False, False, True]
    assert kind.usage["malformed"] == 2
    assert kind.partial


def test_a_sort_without_answers_keeps_the_lists_order():
    for strategy in ("heapsort", "sliding"):
        kind = pairwise(FakeModel(lambda ask, option: math.nan), "rank", strategy=strategy)
        assert kind.judge([group([1, 2, 3, 4, 5])])[0].scores.tolist() == [4, 3, 2, 1, 0]


@pytest.mark.parametrize(
    ("scale", "options", "message"),
    [
        ("logit", {}, "scale = 'probability'"),
        ("probability", {"strategy": "heapsort"}, "scale = 'rank'"),
        ("rank", {"strategy": "heapsort", "aggregate": "wins"}, "nothing to aggregate"),
        ("probability", {"opponents": 3}, "multiple of 2"),
        ("probability", {"first": "Passage"}, "must show"),
        ("probability", {"question": "{first}"}, "know {query} alone"),
        ("probability", {"strateg": "all"}, "did you mean 'strategy'"),
    ],
)
def test_options_that_cannot_be_are_refused(scale, options, message):
    with pytest.raises(CardError, match=message):
        pairwise(scale=scale, **options)


def test_the_fingerprint_holds_what_decides_and_no_batch_size():
    base = pairwise().fingerprint
    assert pairwise(token_budget=64).fingerprint == base
    for change in ({"strategy": "sample"}, {"both_orders": False}, {"question": "?"}, {"seed": 1}):
        assert pairwise(**change).fingerprint != base
