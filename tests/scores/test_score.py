"""The door: what is there is skipped, what is odd is refused, what is kept is every batch before."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from score_fakes import FakeTeacher, make_groups, value

from rerankdistill.errors import DataError, RerankDistillWarning
from rerankdistill.scores.score import estimate, score
from rerankdistill.scores.store import open_store, read_store, store_folder
from rerankdistill.types import Group, Query

GROUPS = make_groups(12, 20)


class Watch:
    def __init__(self):
        self.total, self.steps, self.left = None, [], []

    def start(self, total):
        self.total = total

    def advance(self, pairs, seconds_left):
        self.steps.append(pairs)
        self.left.append(seconds_left)


class Odd(FakeTeacher):
    """Answers one pair with something else than a score."""

    def __init__(self, answer, query="query 7", text="text of d287", partial=False):
        super().__init__()
        self.answer, self.query, self.text, self.partial = answer, query, text, partial

    def judge(self, groups):
        found = super().judge(groups)
        for group, scores in zip(groups, found, strict=True):
            if group.query.text == self.query and self.text in group.texts:
                scores[group.texts.index(self.text)] = self.answer
        return found


def test_a_second_run_asks_the_teacher_nothing_and_a_longer_list_only_what_is_new(tmp_path):
    teacher = FakeTeacher()
    with open_store(tmp_path, "fake", teacher) as store:
        assert score(store, teacher, GROUPS)[:3] == (240, 0, 0)
        asked = len(teacher.calls)
        assert score(store, teacher, GROUPS)[:3] == (0, 240, 0)
        assert len(teacher.calls) == asked
        assert score(store, teacher, make_groups(12, 25))[:3] == (60, 240, 0)
    with read_store(store_folder(tmp_path, "fake", teacher.fingerprint)) as store:
        for group, found in zip(GROUPS, store.lookup(GROUPS), strict=True):
            assert found.tolist() == [np.float32(value(group.query.text, text)) for text in group.texts]


def test_progress_adds_up_to_the_total_and_ends_with_nothing_left(tmp_path):
    teacher = FakeTeacher(sleep=0.001)
    watch = Watch()
    with open_store(tmp_path, "fake", teacher) as store:
        score(store, teacher, GROUPS[:4])
        score(store, teacher, GROUPS, watch, batch_pairs=16, max_batch_pairs=16)
        assert watch.total == sum(watch.steps) == 240
        assert watch.left[-1] == 0.0
        middle = watch.left[len(watch.left) // 2]
        assert middle is not None
        assert 0 < middle < 5
        assert estimate(store, 1000) == pytest.approx(1000 / store.pairs_per_second)


def test_a_stream_is_read_once_and_no_batch_is_larger_than_asked(tmp_path):
    teacher = FakeTeacher()
    watch = Watch()
    with open_store(tmp_path, "fake", teacher) as store:
        score(store, teacher, iter(GROUPS), watch, batch_pairs=7, max_batch_pairs=7)
        assert store.count_missing(GROUPS) == 0
    assert watch.total is None
    assert max(teacher.calls) == 7
    assert sum(teacher.calls) == 240


def test_batches_grow_for_a_fast_teacher_so_that_the_disk_is_not_the_bottleneck(tmp_path):
    teacher = FakeTeacher()
    with open_store(tmp_path, "fake", teacher) as store:
        score(store, teacher, make_groups(40, 50), batch_pairs=32)
    assert teacher.calls[0] == 32
    assert len(teacher.calls) < 12


def test_batches_shrink_for_a_slow_teacher_so_that_a_kill_costs_little(tmp_path):
    teacher = FakeTeacher(sleep=0.02)
    with open_store(tmp_path, "fake", teacher) as store:
        score(store, teacher, GROUPS, batch_pairs=64, batch_seconds=0.005)
    assert teacher.calls[-2] < 64


@pytest.mark.parametrize("answer", [np.nan, np.inf, -np.inf])
def test_a_score_that_is_no_number_names_query_and_document_and_keeps_earlier_batches(tmp_path, answer):
    teacher = Odd(answer)
    with open_store(tmp_path, "fake", teacher) as store:
        with pytest.raises(DataError, match="'q7', document 'd287'"):
            score(store, teacher, GROUPS, batch_pairs=20, max_batch_pairs=20)
        assert len(store) == 140
    with open_store(tmp_path, "fake", FakeTeacher()) as store:
        assert score(store, FakeTeacher(), GROUPS).scored == 100


def test_a_recorded_teacher_may_have_gaps_which_are_counted_and_not_asked_for_again(tmp_path):
    teacher = Odd(np.nan, partial=True)
    with open_store(tmp_path, "fake", teacher) as store:
        with pytest.warns(RerankDistillWarning, match=r"no score for 1 of 240 pairs .*'q7', document 'd287'"):
            assert score(store, teacher, GROUPS).unanswered == 1
        assert score(store, teacher, GROUPS).scored == 0
        assert np.isnan(np.concatenate(store.lookup(GROUPS))).sum() == 1


def test_a_teacher_that_gives_one_score_to_everything_is_noticed(tmp_path):
    class Flat(FakeTeacher):
        def judge(self, groups):
            return [np.full(len(group.doc_ids), 0.5, np.float32) for group in groups]

    with (
        open_store(tmp_path, "flat", Flat()) as store,
        pytest.warns(RerankDistillWarning, match=r"every one of .* 240 scores is 0.5"),
    ):
        score(store, Flat(), GROUPS)


def test_two_equal_scores_on_resuming_are_no_flat_teacher(tmp_path):
    class LateFlat(FakeTeacher):
        def judge(self, groups):
            return [np.zeros(len(group.doc_ids), np.float32) for group in groups]

    with open_store(tmp_path, "fake", FakeTeacher()) as store, warnings.catch_warnings():
        warnings.simplefilter("error")
        score(store, FakeTeacher(), GROUPS[:-1])
        score(store, LateFlat(), GROUPS)


def test_a_teacher_that_miscounts_is_refused(tmp_path):
    class Short(FakeTeacher):
        def judge(self, groups):
            return [scores[:-1] for scores in super().judge(groups)]

    with open_store(tmp_path, "fake", Short()) as store, pytest.raises(DataError, match="19 scores for 20 documents"):
        score(store, Short(), GROUPS)


def test_an_empty_list_of_documents_is_nothing_to_do(tmp_path):
    teacher = FakeTeacher()
    with open_store(tmp_path, "fake", teacher) as store:
        assert score(store, teacher, [Group(Query("q", "text"), (), ())])[:3] == (0, 0, 0)
        assert store.lookup([Group(Query("q", "text"), (), ())])[0].shape == (0,)
