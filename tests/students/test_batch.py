"""A cell of a batch that holds another document's number would teach quietly the wrong thing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_lessons import DOCS, LESSONS, read

from rerankdistill.contracts import Reading
from rerankdistill.examples.build import false_negatives as false_negatives_of_list
from rerankdistill.students.batch import FALSE_NEGATIVE, list_batch
from rerankdistill.types import Example


def example(name: str, doc_ids: str, scores: list[float], positive: int = 0, labels=None, masked=()) -> Example:
    marks = labels or [float(at == positive) for at in range(len(scores))]
    return Example(
        name,
        f"query {name}",
        tuple(doc_ids.split()),
        np.asarray(scores, np.float32),
        np.asarray(marks, np.float32),
        positive,
        masked=tuple(masked),
    )


A = example("a", "d1 d2 d3", [3.0, 1.0, 0.0])
B = example("b", "d4 d2", [2.0, 5.0], positive=1)


def test_the_columns_of_a_batch_are_its_distinct_documents_each_encoded_once():
    batch = list_batch([A, B], read, "batch")
    assert batch.docs == [DOCS[doc_id] for doc_id in ("d1", "d2", "d3", "d4")]
    assert batch.columns.tolist() == [[0, 1, 2, 3]] * 2
    assert batch.own.tolist() == [[True, True, True, False], [False, True, False, True]]
    assert batch.valid.all(), "every document of the batch is a candidate of every query"
    assert batch.scored.tolist() == batch.own.tolist()
    assert batch.teacher.tolist() == [[3.0, 1.0, 0.0, 0.0], [0.0, 5.0, 0.0, 2.0]]
    assert batch.label.tolist() == [[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]]
    assert batch.positive.tolist() == [0, 1], "a positive must point at its document's column, not at its old place"
    assert batch.queries == ["query a", "query b"]


def test_lists_of_unequal_length_are_padded_and_the_padding_takes_part_in_nothing():
    batch = list_batch([A, B], read, "lists")
    assert batch.columns.tolist() == [[0, 1, 2], [3, 1, 0]]
    assert batch.valid.tolist() == [[True, True, True], [True, True, False]]
    assert batch.own.tolist() == batch.valid.tolist() == batch.scored.tolist()
    assert batch.teacher.tolist() == [[3.0, 1.0, 0.0], [2.0, 5.0, 0.0]]
    assert batch.positive.tolist() == [0, 1]
    assert len(batch.docs) == 4, "a document shared by two lists is read once"


def test_a_hidden_positive_is_one_for_labels_and_unknown_to_those_who_follow_the_teacher():
    nobodys = example("c", "d1 d3", [1.0, 2.0], positive=-1, labels=[0.0, 0.0])
    for layout in ("batch", "lists"):
        plain, hidden = (list_batch([A, B, nobodys], read, layout, hide_positive=each) for each in (False, True))
        changed = (plain.scored != hidden.scored).nonzero().tolist()
        assert changed == [[0, int(plain.positive[0])], [1, int(plain.positive[1])]]
        for name in ("positive", "label", "valid", "own", "masked"):
            assert torch.equal(getattr(plain, name), getattr(hidden, name)), name


def test_a_score_that_the_teacher_did_not_give_is_not_a_zero_to_learn():
    batch = list_batch([example("a", "d1 d2", [float("nan"), 1.0])], read, "lists")
    assert batch.scored.tolist() == [[False, True]]
    assert torch.isfinite(batch.teacher).all(), "a NaN would poison the gradient of the cells beside it"


def test_a_query_without_a_positive_has_none():
    assert list_batch([example("a", "d1 d2", [1.0, 2.0], positive=-1)], read, "batch").positive.tolist() == [-1]


@pytest.mark.parametrize("layout", ["batch", "lists"])
def test_every_cell_is_about_the_document_that_its_column_names(layout):
    picked = LESSONS[3:9]
    batch = list_batch(picked, read, layout)
    for row, each in enumerate(picked):
        found = {}
        for column in np.flatnonzero(batch.own[row].numpy()):
            text = batch.docs[int(batch.columns[row, column])]
            found[text] = (float(batch.teacher[row, column]), float(batch.label[row, column]))
        wanted = {
            DOCS[doc_id]: (float(score), float(label))
            for doc_id, score, label in zip(each.doc_ids, each.scores, each.labels, strict=True)
        }
        assert found == wanted
        assert batch.docs[int(batch.columns[row, batch.positive[row]])] == DOCS[each.doc_ids[each.positive]]


def live(examples, doc_ids):
    """The teacher gives (row + 1) * 10 + column."""
    return np.asarray([[10.0 * (row + 1) + column for column in range(len(doc_ids))] for row in range(len(examples))])


def test_a_live_teacher_fills_the_other_lists_documents_and_leaves_the_own_ones_alone():
    batch = list_batch([A, B], read, "batch", live)
    assert batch.teacher.tolist() == [[3.0, 1.0, 0.0, 13.0], [20.0, 5.0, 22.0, 2.0]]
    assert batch.scored.all()


def test_a_live_teacher_has_no_say_where_pairs_are_read():
    def never(*_):
        raise AssertionError("a cross-encoder reads only its own lists")

    assert (
        list_batch([A, B], read, "lists", never).teacher.tolist() == list_batch([A, B], read, "lists").teacher.tolist()
    )


def test_documents_of_other_lists_that_the_teacher_likes_as_much_as_the_positive_are_no_negatives():
    batch = list_batch([A, B], read, "batch", live)
    # a: floor 0, positive 3: d4 at 13 is above .95 of it. b: floor 2, positive 5: d1 at 20 and d3 at 22.
    assert batch.masked.tolist() == [[False, False, False, True], [True, False, True, False]]


def test_marks_of_the_complete_list_survive_the_cut():
    batch = list_batch([example("a", "d1 d2 d3", [3.0, 2.9, 0.0], masked=[False, True, False])], read, "batch")
    assert batch.masked.tolist() == [[False, True, False]]
    plain = list_batch([example("a", "d1 d2 d3", [3.0, 2.99, 0.0])], read, "batch")
    assert not plain.masked.any(), "the floor of a cut list is another: its own documents were marked before the cut"


def test_both_masks_follow_one_rule():
    scores = np.asarray([1.0, 0.94, 0.96, 0.2, 0.0], np.float32)
    whole = false_negatives_of_list(scores, 0, FALSE_NEGATIVE)
    own = example("a", "d1 d2", [1.0, 0.0])
    stranger = example("b", "d3 d4 d5", [1.0, 0.5, 0.0])
    rows = np.asarray([[1.0, 0.0, 0.94, 0.96, 0.2], [0.0] * 5])
    batch = list_batch([own, stranger], read, "batch", lambda *_: rows)
    assert batch.masked[0].tolist() == [False, False, *whole[1:4].tolist()]


def test_the_record_for_losses_is_the_batch_around_the_students_scores():
    batch = list_batch([A, B], read, "batch", live)
    student = torch.zeros(2, 4, requires_grad=True)
    scores = batch.scores(Reading(student))
    assert scores.student is student
    for name in ("teacher", "valid", "scored", "own", "label", "positive", "masked"):
        assert torch.equal(getattr(scores, name), getattr(batch, name)), name


def compared(whole: Example, cells: dict[tuple[int, int], float]) -> Example:
    n = len(whole.doc_ids)
    won = np.full((n, n), np.nan, np.float32)
    for (i, j), share in cells.items():
        won[i, j] = share
    return replace(whole, preferences=won)


@pytest.mark.parametrize(
    ("layout", "expected"),
    [
        ("batch", {(0, 0, 2): 0.8, (0, 1, 2): 0.3, (1, 3, 1): 0.25}),
        ("lists", {(0, 0, 2): 0.8, (0, 1, 2): 0.3, (1, 0, 1): 0.25}),
    ],
)
def test_a_comparison_points_at_its_documents_columns_and_is_told_once(layout, expected):
    a = compared(A, {(0, 2): 0.9, (2, 0): 0.3, (2, 1): 0.7, (1, 1): 0.5})  # both orders, one order, a self-comparison
    b = compared(B, {(0, 1): 0.25, (1, 0): 0.75})
    theirs = list_batch([a, b], read, layout).preferences
    parts = (theirs.row.tolist(), theirs.first.tolist(), theirs.second.tolist())
    found = dict(zip(zip(*parts, strict=True), theirs.probability.tolist(), strict=True))
    assert found == pytest.approx(expected)
    assert len(theirs.row) == len(expected)
    scores = list_batch([a, b], read, layout).scores(Reading(torch.zeros(2, 4 if layout == "batch" else 3)))
    assert scores.preferences.probability.tolist() == theirs.probability.tolist()


def test_a_batch_without_comparisons_has_none_to_learn():
    assert list_batch([A, B], read, "batch").preferences is None
    unasked = list_batch([compared(A, {}), B], read, "batch").preferences
    assert len(unasked.row) == 0


@pytest.mark.parametrize(("layout", "places"), [("batch", ([0, 1, 2], [3, 1])), ("lists", ([0, 1, 2], [0, 1]))])
def test_both_logits_lie_where_their_documents_score_does(layout, places):
    logits = np.arange(6, dtype=np.float32).reshape(3, 2)
    batch = list_batch([replace(A, logits=logits), replace(B, logits=logits[:2])], read, layout)
    for row, columns in enumerate(places):
        assert batch.logits[row, columns].tolist() == logits[: len(columns)].tolist()
        assert batch.own[row].sum() == torch.isfinite(batch.logits[row]).all(-1).sum()
    reading = Reading(torch.zeros(2, batch.logits.shape[1]), logits=torch.zeros(batch.logits.shape))
    assert batch.scores(reading).logits.teacher.shape == batch.logits.shape
