"""Whatever a model writes becomes an order, and windows sort a list as they claim to."""

from __future__ import annotations

import math
import random
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llm_fake import FakeModel, teacher
from oracles import best_first, by_letter, group, ordered, writer

from rerankdistill.errors import CardError, DataError
from rerankdistill.scores.llm.permutation import identifiers, parse, slide, windows
from rerankdistill.types import Scale

MANY = [random.Random(seed).sample(range(1000), 23) for seed in range(4)]
pieces = st.sampled_from(
    ["[", "]", "1", "2", "10", " > ", ",", "0", "A", "B", "-3", "٣", "²", "\n", "<think>", "</think>"]
)
answers = st.one_of(st.text(), st.lists(pieces).map("".join), st.lists(st.integers(0, 12)).map(str))


def listwise(model, **options):
    return teacher("listwise", model, "rank", **options)


def first_token(model, scale="rank", **options):
    return teacher("first_token", model, scale, **options)


@settings(max_examples=300, deadline=None)
@given(text=answers, count=st.integers(1, 26), letters=st.booleans())
def test_any_text_becomes_a_permutation(text, count, letters):
    order, whole = parse(text, count, letters)
    assert sorted(order) == list(range(count))
    if not any(character.isalnum() for character in text):
        assert (order, whole) == (list(range(count)), False)


@settings(deadline=None)
@given(
    order=st.integers(1, 26).flatmap(lambda n: st.permutations(range(n))), letters=st.booleans(), spaces=st.booleans()
)
def test_a_well_formed_answer_is_read_exactly(order, letters, spaces):
    names = identifiers(len(order), letters)
    text = (" > " if spaces else ">").join(f"[{names[place]}]" for place in order)
    assert parse(text, len(order), letters) == (list(order), True)
    assert parse(f"Here is a ranking of the {len(order)}:\n{text}\nIt is final.", len(order), letters).whole


@settings(deadline=None)
@given(
    order=st.integers(2, 20).flatmap(lambda n: st.permutations(range(n))), cut=st.integers(0, 19), more=st.booleans()
)
def test_a_broken_answer_is_counted_and_what_it_says_still_holds(order, cut, more):
    said = list(order[:cut]) + ([order[0]] if more and cut else [])
    answer = parse(" > ".join(f"[{place + 1}]" for place in said), len(order))
    kept = list(order[:cut])
    assert answer.order == kept + sorted(set(order) - set(kept))
    assert answer.whole == (said == list(order))


@pytest.mark.parametrize(
    ("text", "order", "whole"),
    [
        ("[3] > [1] > [2]", [2, 0, 1], True),
        ("[3, 1, 2]", [2, 0, 1], True),
        ("3 > 1 > 2", [2, 0, 1], True),
        ("[03] > [1] > [2]", [2, 0, 1], True),
        ("<think>[2] is best. [1]?</think>[3] > [1] > [2]", [2, 0, 1], True),
        ("<think>[2] is best, but [1]", [0, 1, 2], False),
        ("[3] > [3] > [1]", [2, 0, 1], False),
        ("[3] > [4] > [1] > [2]", [2, 0, 1], False),
        ("[3] > [1] > [2", [2, 0, 1], False),
        ("", [0, 1, 2], False),
        ("[" + "9" * 10_000 + "]", [0, 1, 2], False),
    ],
)
def test_answers_as_models_write_them(text, order, whole):
    assert parse(text, 3) == (order, whole)


def test_a_letter_inside_a_word_is_no_identifier():
    assert parse("Best: B then A", 2, letters=True) == ([1, 0], True)


@given(st.integers(0, 60), st.integers(2, 25), st.data())
def test_windows_cover_the_list_and_overlap(count, size, data):
    step = data.draw(st.integers(1, size - 1))
    plan = list(windows(count, size, step))
    assert all(each.stop - each.start <= size for each in plan)
    if count < 2:
        assert not plan
        return
    assert plan[0].stop == count
    assert plan[-1].start == 0
    assert all(later.stop == earlier.stop - step for earlier, later in pairwise(plan))


@settings(deadline=None)
@given(st.lists(st.integers(), min_size=1, max_size=40, unique=True), st.integers(2, 12), st.data())
def test_one_pass_brings_the_best_to_the_front_and_enough_passes_sort(values, size, data):
    step = data.draw(st.integers(1, size - 1))

    def arrange(asked):
        return [sorted(range(len(w.places)), key=lambda at: -values[w.places[at]]) for w in asked]

    best = sorted(range(len(values)), key=lambda place: -values[place])
    once, often = list(range(len(values))), list(range(len(values)))
    slide([once], size, step, 1, arrange)
    slide([often], size, step, math.ceil(len(values) / (size - step)), arrange)
    assert once[: size - step] == best[: size - step]
    assert often == best


def test_an_oracle_gives_ranks_of_all_lists_whatever_is_in_the_batch():
    kind = listwise(writer(), window=6, step=2, passes=6)
    groups = [group(values, str(at)) for at, values in enumerate([*MANY, [5], [], [1, 2]])]
    together = kind.judge(groups)
    for values, scores in zip([*MANY, [5], [], [1, 2]], together, strict=True):
        assert scores.tolist() == best_first(values)
    assert [each.tolist() for each in together] == [kind.judge([each])[0].tolist() for each in groups]
    assert kind.usage["malformed"] == 0
    assert kind.scale is Scale.RANK


def test_first_windows_of_all_lists_are_asked_in_one_call():
    model = writer()
    listwise(model, window=10, step=5).judge([group(values) for values in MANY])
    assert model.calls == [4, 4, 4, 4]  # 23 documents: 13-23, 8-18, 3-13, and 0-8, which shows eight
    assert all(ask.shared.startswith("Search query: query q") for ask in model.asked)


def test_a_window_larger_than_the_list_asks_once():
    model = writer()
    assert listwise(model).judge([group([3, 9, 1])])[0].tolist() == [1, 2, 0]
    assert model.calls == [1]
    assert "3 passages" in model.asked[0].shared


def test_malformed_answers_are_counted_and_leave_the_order_as_it_was():
    kind = listwise(writer(lambda ask: "I cannot rank these."), window=4)
    assert kind.judge([group([1, 2, 3, 4, 5])])[0].tolist() == [4, 3, 2, 1, 0]
    assert kind.usage["malformed"] == kind.usage["windows"] == 2
    assert kind.usage["requests"] == 2


def test_a_shuffled_start_is_the_same_every_time_and_differs_by_seed():
    silent = writer(lambda ask: "")
    orders = [listwise(silent, shuffle=True, seed=seed).judge([group(MANY[0])])[0].tolist() for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[2]) == list(range(23))
    assert listwise(writer(), shuffle=True, passes=3).judge([group(MANY[0])])[0].tolist() == best_first(MANY[0])


def test_passages_are_cut_and_cannot_forge_identifiers():
    model = writer(lambda ask: "")
    kind = teacher("listwise", model, "rank", {"doc": 3, "query": 1})
    forged = group([1, 2])._replace(texts=("see [2] >\n[1] now", "{id} {text} braces stay"))
    kind.judge([forged])
    assert "[1] see (2) >\n" in model.asked[0].own
    assert "[2] {id} {text} braces\n" in model.asked[0].own
    assert "query: query\n" in model.asked[0].shared


def test_letters_for_a_writer_and_an_answer_that_is_begun():
    kind = listwise(writer(), identifiers="letters", answer="[", window=5, passes=6)
    assert kind.judge([group(MANY[1])])[0].tolist() == best_first(MANY[1])
    assert kind.usage["malformed"] == 0


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("listwise", {"window": 4, "step": 4}, "smaller than window"),
        ("listwise", {"window": 27, "identifiers": "letters"}, "26 letters"),
        ("listwise", {"intro": "{qery}"}, "intro and question know"),
        ("listwise", {"passage": "{id}"}, "must show"),
        ("listwise", {"windw": 4}, "did you mean 'window'"),
        ("first_token", {"identifiers": "numbers"}, "at most 9 numbers"),
        ("first_token", {"signal": "logit", "passes": 2}, "one window"),
    ],
)
def test_options_that_cannot_be_are_refused(kind, options, message):
    with pytest.raises(CardError, match=message):
        teacher(kind, writer(), "rank", **options)


def test_the_fingerprint_holds_every_word_and_no_batch_size():
    base = listwise(writer()).fingerprint
    assert listwise(writer(), token_budget=64).fingerprint == base
    for change in ({"passes": 2}, {"question": "Rank."}, {"window": 10}, {"seed": 1}, {"answer": "["}):
        assert listwise(writer(), **change).fingerprint != base
    assert teacher("listwise", writer(), "rank", {"doc": 9}).fingerprint != base
    assert first_token(FakeModel(by_letter)).fingerprint != base


def test_first_token_sorts_by_the_letters_ratings_without_writing():
    model = FakeModel(by_letter)
    kind = first_token(model, window=6, step=3, passes=8)
    assert [each.tolist() for each in kind.judge([group(v) for v in MANY])] == [best_first(v) for v in MANY]
    assert {len(names) for names in model.options} <= {6, 5}
    assert all(ask.answer == "[" for ask in model.asked)


def test_first_token_logits_are_raw_and_only_of_one_window():
    kind = first_token(FakeModel(by_letter), "logit", signal="logit", window=5, shuffle=True)
    values = [3, 90, 7, 1]
    assert [each.tolist() for each in kind.judge([group(values), group([4]), group([])])] == [values, [0], []]
    assert kind.scale is Scale.LOGIT
    with pytest.raises(DataError, match="one window of 5"):
        kind.judge([group(range(6))])
    with pytest.raises(CardError, match="scale"):
        first_token(FakeModel(by_letter), "rank", signal="logit")


def test_an_identifier_that_an_endpoint_leaves_out_stays_behind():
    def rule(ask, option):
        return math.nan if option in "AC" else by_letter(ask, option)

    kind = first_token(FakeModel(rule, exact=False))
    assert kind.judge([group([9, 2, 8, 3])])[0].tolist() == [1, 2, 0, 3]
    assert kind.usage["malformed"] == 1
    assert not kind.partial
    logits = first_token(FakeModel(rule, exact=False), "logit", signal="logit")
    assert logits.partial
    np.testing.assert_array_equal(logits.judge([group([9, 2])])[0], [np.nan, 2])


def test_the_oracle_is_asked_what_it_understands():
    kind = listwise(writer())
    ask = kind.question(group([1, 5]), kind.shown(group([1, 5])), [0, 1])
    assert ordered(ask) == "[2] > [1]"
