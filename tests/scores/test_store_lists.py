"""A store of whole lists, with what the teacher said beside its scores and what it cost."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from list_fakes import FakeListTeacher, said
from list_kill_driver import BATCH, LISTS, SIZE
from score_fakes import FakeTeacher, make_groups

from rerankdistill.errors import ArtifactError, DataError
from rerankdistill.scores.score import score
from rerankdistill.scores.store import open_store, read_store, store_folder
from rerankdistill.types import Answer, Group

DRIVER = Path(__file__).with_name("list_kill_driver.py")
GROUPS = make_groups(9, 7)


def fill(root, teacher, groups, **options):
    with open_store(root, "lists", teacher, compact_pairs=options.pop("compact_pairs", 10**6)) as store:
        return score(store, teacher, groups, **options)


def reader(root):
    return read_store(store_folder(root, "lists", FakeListTeacher().fingerprint))


def same(found: Answer, wanted: Answer) -> None:
    np.testing.assert_array_equal(found.scores, wanted.scores)
    assert found.traces == wanted.traces
    assert len(found.details) == len(wanted.details)
    for left, right in zip(found.details, wanted.details, strict=True):
        np.testing.assert_array_equal(left, right)


def reordered(group: Group) -> Group:
    return Group(group.query, group.doc_ids[::-1], group.texts[::-1])


def test_a_list_is_never_cut_however_small_the_batches(tmp_path):
    teacher = FakeListTeacher()
    counts = fill(tmp_path, teacher, GROUPS, batch_pairs=3, max_batch_pairs=3)
    assert teacher.asked == [group.doc_ids for group in GROUPS]
    assert counts.scored == 63


def test_the_same_list_is_not_asked_again_and_another_order_is_another_list(tmp_path):
    fill(tmp_path, FakeListTeacher(), GROUPS)
    again = FakeListTeacher()
    counts = fill(tmp_path, again, [*GROUPS, *GROUPS])
    assert (again.asked, counts.skipped) == ([], 126)
    fill(tmp_path, again, [GROUPS[0], reordered(GROUPS[0]), Group(GROUPS[0].query, ("x",), (GROUPS[0].texts[0],))])
    assert again.asked == [GROUPS[0].doc_ids[::-1], ("x",)]
    with reader(tmp_path) as store:
        assert len(store) == 63 + 7 + 1
        for group in (GROUPS[0], reordered(GROUPS[0])):
            np.testing.assert_array_equal(store.lookup([group])[0], said(group).scores)
        assert np.isnan(store.lookup([Group(GROUPS[0].query, GROUPS[0].doc_ids[:6], GROUPS[0].texts[:6])])[0]).all()


def test_a_list_given_twice_in_one_batch_is_stored_once(tmp_path):
    fill(tmp_path, FakeListTeacher(), [GROUPS[0], GROUPS[0]], batch_pairs=100)
    with reader(tmp_path) as store:
        assert len(store) == 7


@pytest.mark.parametrize("compact_pairs", [10**6, 20])
def test_details_and_traces_read_back_as_they_were_given(tmp_path, compact_pairs):
    teacher = FakeListTeacher()
    with open_store(tmp_path, "lists", teacher, compact_pairs=compact_pairs) as store:
        for at in range(0, 9, 3):  # the last three stay in the log where parts are made of 20 pairs and more
            store.append(list(zip(GROUPS[at : at + 3], teacher.judge(GROUPS[at : at + 3]), strict=True)))
        held = store.answers(GROUPS)
    with reader(tmp_path) as store:
        in_parts = sum(part["rows"] for part in store._manifest.counts["parts"])
        assert (in_parts > 0) == (compact_pairs == 20)
        read = store.answers([*reversed(GROUPS), reordered(GROUPS[0])])
        assert store.answers([]) == []
    for group, first, second in zip(GROUPS, held, reversed(read[:-1]), strict=True):
        same(first, said(group))
        same(second, said(group))
    assert np.isnan(read[-1].scores).all()
    assert read[-1].traces == ("",) * 7
    assert all(len(row) == 0 for row in read[-1].details)


def test_details_survive_a_compaction_that_merges_parts_with_the_log(tmp_path):
    for at in range(9):  # each run ends with a compaction
        fill(tmp_path, FakeListTeacher(), GROUPS[at : at + 1], compact_pairs=30)
    with reader(tmp_path) as store:
        for group, answer in zip(GROUPS, store.answers(GROUPS), strict=True):
            same(answer, said(group))
        assert store.usage == {"tokens": 63, "requests": 9}


def test_a_teacher_of_plain_scores_keeps_nothing_beside_them(tmp_path):
    with open_store(tmp_path, "plain", FakeTeacher()) as store:
        score(store, FakeTeacher(), GROUPS)
        answer = store.answers(GROUPS[:1])[0]
    assert (answer.details, answer.traces) == ((), ())
    np.testing.assert_array_equal(answer.scores, FakeTeacher().judge(GROUPS[:1])[0])


def test_costs_add_up_over_batches_runs_and_compactions_and_are_told(tmp_path):
    first, second = FakeListTeacher(), FakeListTeacher()
    fill(tmp_path, first, GROUPS[:5], batch_pairs=7, max_batch_pairs=7, compact_pairs=20)
    assert first.told == {}
    fill(tmp_path, second, GROUPS, batch_pairs=7, max_batch_pairs=7, compact_pairs=20)
    assert second.told == {"tokens": 35, "requests": 5}
    second.told["tokens"] = 0  # a teacher may do with it what it likes
    with reader(tmp_path) as store:
        assert store.usage == {"tokens": 63, "requests": 9}


def test_what_a_failed_batch_has_cost_is_on_record(tmp_path):
    class Dying(FakeListTeacher):
        def judge(self, groups):
            answers = super().judge(groups)
            if self.usage["requests"] > 3:
                raise DataError("the endpoint is gone")
            return answers

    teacher = Dying()
    with pytest.raises(DataError, match="gone"):
        fill(tmp_path, teacher, GROUPS, batch_pairs=7, max_batch_pairs=7)
    assert teacher.usage["requests"] == 4
    with reader(tmp_path) as store:
        assert len(store) == 21
        assert store.usage == {"tokens": 28, "requests": 4}
    after = FakeListTeacher()
    fill(tmp_path, after, GROUPS)
    assert after.told == {"tokens": 28, "requests": 4}
    assert after.asked == [group.doc_ids for group in GROUPS[3:]]
    with reader(tmp_path) as store:
        assert (len(store), store.usage["requests"]) == (63, 10)


def test_a_cost_without_any_score_survives_compaction(tmp_path):
    with open_store(tmp_path, "lists", FakeListTeacher()) as store:
        store.charge({"cost": 0.5})
        store.charge({})
        store.compact()
        store.append([], usage={"cost": 0.25})
    with reader(tmp_path) as store:
        assert (len(store), store.usage) == (0, {"cost": 0.75})
        with pytest.raises(ArtifactError, match="reading only"):
            store.charge({"cost": 1})


@pytest.mark.parametrize(
    "wrong", [lambda a: a.scores, lambda a: a._replace(details=a.details[1:]), lambda a: a._replace(traces=())]
)
def test_a_teacher_that_does_not_give_what_it_keeps_is_named(tmp_path, wrong):
    class Forgetful(FakeListTeacher):
        def judge(self, groups):
            return [wrong(answer) for answer in super().judge(groups)]

    with pytest.raises(DataError, match=r"gave \d (details|traces) for 7 documents"):
        fill(tmp_path, Forgetful(), GROUPS)


def test_kill_nine_loses_one_batch_of_lists_at_most_and_no_recorded_cost(tmp_path):
    kills = 8
    done = subprocess.run(
        [sys.executable, str(DRIVER), str(tmp_path), str(random.Random(3).randint(0, 99)), str(kills)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    killed = int(done.stdout)
    assert killed >= 4
    groups = make_groups(LISTS, SIZE)
    with reader(tmp_path) as store:
        assert len(store) == LISTS * SIZE
        assert sum(part["rows"] for part in store._manifest.counts["parts"]) == LISTS * SIZE
        for group, answer in zip(groups, store.answers(groups), strict=True):
            same(answer, said(group))
        assert store.usage == {"tokens": LISTS * SIZE, "requests": LISTS}
    sizes = [int(line) for line in (tmp_path / "side").read_text().split()]
    assert set(sizes) == {SIZE}, "a list was cut"
    lists_a_batch = -(-BATCH // SIZE)
    assert len(sizes) <= LISTS + killed * lists_a_batch
