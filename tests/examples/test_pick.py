from __future__ import annotations

import subprocess
import sys
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerankdistill.errors import UsageError
from rerankdistill.examples.pick import STRATEGIES, pick, take
from rerankdistill.examples.shuffle import shuffled, shuffled_matrix
from rerankdistill.types import Example

NAN = float("nan")


def example(n=20, positive=3, labels=None, scores=None, query_id="q"):
    ids = tuple(f"d{i:02}" for i in range(n))
    scores = np.asarray(np.arange(n)[::-1] if scores is None else scores, np.float32)
    grades = np.zeros(n, np.float32)
    if labels is None and positive >= 0:
        grades[positive] = 1
    for column, grade in (labels or {}).items():
        grades[column] = grade
    return Example(query_id, "text", ids, scores, grades, positive, (1.0,), (2.0,), tuple(i % 3 == 0 for i in range(n)))


@given(
    strategy=st.sampled_from(STRATEGIES),
    size=st.integers(1, 25),
    n=st.integers(2, 12),
    seed=st.integers(0, 99),
    epoch=st.integers(0, 9),
    data=st.data(),
)
def test_a_pick_is_a_list_of_n_with_the_positive_first(strategy, size, n, seed, epoch, data):
    positive = data.draw(st.integers(-1, size - 1))
    scores = data.draw(st.lists(st.floats(-9, 9, width=32) | st.just(NAN), min_size=size, max_size=size))
    whole = example(size, positive, scores=scores)
    got = pick(whole, n, strategy, seed, epoch)
    assert len(got.doc_ids) == min(n, size)
    assert len(set(got.doc_ids)) == len(got.doc_ids)
    assert got.positive == (0 if positive >= 0 else -1)
    for column, doc_id in enumerate(got.doc_ids):
        source = whole.doc_ids.index(doc_id)
        np.testing.assert_equal(got.scores[column], whole.scores[source])
        assert got.labels[column] == whole.labels[source]
        assert got.masked[column] == whole.masked[source]
    if positive >= 0:
        assert got.doc_ids[0] == whole.doc_ids[positive]
    assert (got.means, got.stds) == (whole.means, whole.stds)
    turned = take(whole, np.arange(size)[::-1], size - 1 - positive if positive >= 0 else -1)
    assert pick(turned, n, strategy, seed, epoch).doc_ids == got.doc_ids


def test_top_is_the_best_scored_with_ties_by_id_and_unscored_last():
    whole = example(5, positive=2, scores=[1.0, 7.0, 0.0, 7.0, NAN])
    assert pick(whole, 4, "top").doc_ids == ("d02", "d01", "d03", "d00")
    assert pick(whole, 5, "top").doc_ids[-1] == "d04"


def test_bottom_is_the_lowest_that_was_scored_and_unscored_ones_only_fill_up():
    whole = example(6, positive=1, scores=[1.0, 7.0, 0.0, 3.0, 2.0, NAN])
    assert pick(whole, 4, "bottom").doc_ids == ("d01", "d04", "d00", "d02")
    assert pick(whole, 6, "bottom").doc_ids[-1] == "d05"
    assert pick(example(3, positive=0, scores=[1.0, NAN, 0.0]), 3, "bottom").doc_ids == ("d00", "d02", "d01")


def test_top_and_random_keeps_the_best_half():
    for epoch in range(5):
        got = pick(example(positive=-1), 6, "top_and_random", epoch=epoch)
        assert got.doc_ids[:3] == ("d00", "d01", "d02")
    assert len({pick(example(), 6, "top_and_random", epoch=epoch).doc_ids for epoch in range(10)}) > 5


def test_log_random_prefers_the_top_and_random_does_not():
    def counts(strategy):
        seen = Counter()
        for epoch in range(400):
            seen.update(pick(example(positive=-1), 4, strategy, epoch=epoch).doc_ids)
        return seen

    assert counts("log_random")["d00"] > 2 * counts("log_random")["d19"]
    assert 0.6 < counts("random")["d00"] / counts("random")["d19"] < 1.6


def test_single_relevant_takes_turns_and_never_takes_two():
    whole = example(labels={2: 1, 5: 3, 9: 1}, positive=5)
    firsts = set()
    for epoch in range(30):
        got = pick(whole, 6, "single_relevant", epoch=epoch)
        assert (got.labels > 0).tolist() == [True] + [False] * 5
        firsts.add(got.doc_ids[0])
    assert firsts == {"d02", "d05", "d09"}


def test_all_relevant_keeps_several_and_leaves_half_the_list_to_the_others():
    whole = example(labels={2: 1, 5: 3, 9: 1, 11: 1, 13: 1}, positive=5)
    met = set()
    for epoch in range(30):
        got = pick(whole, 6, "all_relevant", epoch=epoch)
        assert got.doc_ids[0] == "d05"
        assert (got.labels > 0).tolist() == [True] * 3 + [False] * 3
        met |= set(got.doc_ids[1:3])
    assert met == {"d02", "d09", "d11", "d13"}
    few = pick(example(labels={2: 1, 5: 3}, positive=5), 8, "all_relevant")
    assert (few.labels > 0).sum() == 2
    assert len(few.doc_ids) == 8


def with_more(whole):
    """Preferences and logits by which a document's old column is known again: P(i, j) = i + j / 100, logit i."""
    columns = np.arange(len(whole.doc_ids), dtype=np.float32)
    return replace(
        whole, preferences=columns[:, None] + columns / 100, logits=np.stack([-columns, columns], 1).astype(np.float32)
    )


def test_preferences_and_logits_go_where_their_documents_go():
    whole = with_more(example())
    got = pick(whole, 6, "random")
    old = np.array([whole.doc_ids.index(doc_id) for doc_id in got.doc_ids])
    np.testing.assert_allclose(got.preferences, old[:, None] + old / 100)
    np.testing.assert_allclose(got.logits, np.stack([-old, old], 1))
    assert pick(example(), 6, "random").preferences is None


def test_the_control_is_not_told_the_true_preferences_and_logits():
    whole = with_more(example(positive=-1, scores=np.arange(20)))
    (after,) = shuffled([whole], 1)
    moved = after.scores.astype(int)  # a score was its column
    assert (moved != np.arange(20)).sum() > 10
    np.testing.assert_allclose(after.preferences, moved[:, None] + moved / 100, atol=1e-5)
    np.testing.assert_allclose(after.logits[:, 1], moved)


def test_epochs_seeds_and_queries_differ_and_the_same_again_is_the_same():
    def drawn(**key):
        return pick(example(query_id=key.pop("query_id", "q")), 5, "random", **key).doc_ids

    assert drawn(seed=1, epoch=2) == drawn(seed=1, epoch=2)
    assert (
        len(
            {
                drawn(seed=1, epoch=2),
                drawn(seed=2, epoch=1),
                drawn(seed=1, epoch=3),
                drawn(query_id="r", seed=1, epoch=2),
            }
        )
        == 4
    )


def test_another_process_picks_the_same():
    code = (
        "import numpy as np; from rerankdistill.examples.pick import pick; from rerankdistill.types import Example;"
        "z = np.zeros(50, np.float32);"
        "print(pick(Example('q', '', tuple(map(str, range(50))), z, z, -1), 5, 'random', 7, 3).doc_ids)"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": salt}, capture_output=True, check=True
        ).stdout
        for salt in ("1", "2")
    }
    assert len(outputs) == 1


@pytest.mark.parametrize(("n", "strategy"), [(1, "top"), (0, "random"), (4, "best")])
def test_wrong_requests_are_refused(n, strategy):
    with pytest.raises(UsageError):
        pick(example(), n, strategy)


def test_shuffled_scores_are_the_same_scores_on_other_documents():
    whole = [example(query_id=f"q{i}") for i in range(20)]
    control = shuffled(whole, seed=1)
    moved = 0
    for before, after in zip(whole, control, strict=True):
        assert before.doc_ids == after.doc_ids
        assert after.positive == before.positive
        np.testing.assert_array_equal(np.sort(before.scores), np.sort(after.scores))
        np.testing.assert_array_equal(before.labels, after.labels)
        assert after.masked == after.means == after.stds == ()
        moved += int((before.scores != after.scores).sum())
    assert moved > 300
    np.testing.assert_array_equal(control[3].scores, shuffled(whole, 1)[3].scores)
    assert not np.array_equal(control[3].scores, shuffled(whole, 2)[3].scores)
    assert not np.array_equal(control[3].scores, control[4].scores)


def test_the_teachers_favourite_does_not_leak_into_the_control_as_its_positive():
    whole = [example(positive=0, labels={}, query_id=f"q{i}") for i in range(10)]
    control = shuffled(whole, 0)
    assert all(one.scores[one.positive] == one.scores.max() for one in control)
    assert len({one.positive for one in control}) > 3


def test_a_shuffled_matrix_keeps_each_rows_scores():
    scores = np.arange(12, dtype=np.float32).reshape(2, 6)
    got = shuffled_matrix(scores, ["a", "b"], 3)
    np.testing.assert_array_equal(np.sort(got, 1), scores)
    assert not np.array_equal(got, scores)
    np.testing.assert_array_equal(got[1], shuffled_matrix(scores[1:], ["b"], 3)[0])
