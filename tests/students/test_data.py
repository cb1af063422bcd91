"""Arms are comparable only if they see the same queries in the same steps."""

from __future__ import annotations

import numpy as np
from tiny_lessons import LESSONS, lists, read

from rerankdistill.students.batch import VectorBatch
from rerankdistill.students.data import Lists, Representations, Schedule


def order(schedule: Schedule) -> list[str]:
    return [schedule[at].query_id for at in range(len(schedule))]


def test_every_arm_sees_the_same_queries_in_the_same_steps():
    taught = Lists(LESSONS, lambda example, _: example, read, "batch")
    labelled = Lists(LESSONS, lambda example, _: example, read, "lists")
    assert order(Schedule(taught, 100, 3)) == order(Schedule(labelled, 100, 3))
    assert order(Schedule(taught, 100, 3)) != order(Schedule(taught, 100, 4))


def test_an_epoch_has_every_query_once_and_the_next_another_order():
    seen = order(Schedule(lists(), 3 * len(LESSONS), 1))
    epochs = [seen[at : at + len(LESSONS)] for at in range(0, len(seen), len(LESSONS))]
    for epoch in epochs:
        assert sorted(epoch) == sorted(example.query_id for example in LESSONS)
    assert epochs[0] != epochs[1] != epochs[2]


def test_a_schedule_that_is_entered_in_the_middle_goes_on_as_if_it_had_run_from_the_start():
    whole, resumed = Schedule(lists(), 120, 5), Schedule(lists(), 120, 5)
    before = [whole[at] for at in range(120)]
    for at in (119, 87, 41, 40):
        item = resumed[at]
        assert (item.query_id, item.doc_ids) == (before[at].query_id, before[at].doc_ids), at


def test_documents_are_drawn_anew_each_epoch():
    schedule = Schedule(lists(size=3), 2 * len(LESSONS), 1)
    drawn: dict[str, set[tuple[str, ...]]] = {}
    for at in range(len(schedule)):
        drawn.setdefault(schedule[at].query_id, set()).add(schedule[at].doc_ids)
    assert sum(len(found) > 1 for found in drawn.values()) > len(LESSONS) // 2


def test_texts_keep_their_own_vectors():
    targets = np.arange(12, dtype=np.float32).reshape(4, 3)
    data = Representations(["a", "b", "c", "d"], targets)
    schedule = Schedule(data, 4, 2)
    batch = data.collate([schedule[at] for at in range(4)])
    assert isinstance(batch, VectorBatch)
    assert sorted(batch.texts) == ["a", "b", "c", "d"]
    for text, target in zip(batch.texts, batch.targets.tolist(), strict=True):
        assert target == targets["abcd".index(text)].tolist()


def queue_of(data, schedule, step, size=4):
    """What a step's queue says of the texts in it: targets whose first number is the row."""
    queue = data.collate([schedule[at] for at in range(step * size, (step + 1) * size)]).queue
    return [] if queue is None else queue[:, 0].int().tolist()


def test_the_queue_holds_the_texts_met_before_the_first_in_the_first_out_wherever_training_is_entered():
    targets = np.arange(40, dtype=np.float32).reshape(20, 2) // 2
    data = Representations([f"t{row}" for row in range(20)], targets, queue=6, seed=3)
    schedule = Schedule(data, 60, 3)
    met = [schedule[at][0] for at in range(60)]
    assert queue_of(data, schedule, 0) == []
    assert queue_of(data, schedule, 1) == met[:4]
    for step in (14, 3, 2, 4, 3):  # any order: nothing is remembered
        before = met[step * 4 - 6 : step * 4]
        own = set(met[step * 4 : step * 4 + 4])
        assert queue_of(data, schedule, step) == [row for row in before if row not in own], step
    assert queue_of(data, schedule, 4) == met[10:16], "an epoch has 20 texts: nothing came twice"
    resumed = Representations(list(data.texts), targets, queue=6, seed=3)
    assert queue_of(resumed, Schedule(resumed, 60, 3), 9) == queue_of(data, schedule, 9)


def test_a_text_is_never_its_own_negative_in_the_queue():
    targets = np.arange(16, dtype=np.float32).reshape(8, 2) // 2
    data = Representations(["a", "b", "c", "d"] * 2, targets, queue=100, seed=1)  # every text is there twice
    schedule = Schedule(data, 80, 1)
    for step in range(20):
        batch = data.collate([schedule[at] for at in range(step * 4, step * 4 + 4)])
        others = set() if batch.queue is None else {"abcd"[int(row) % 4] for row in batch.queue[:, 0]}
        assert not others & set(batch.texts)
