"""A positive that was swapped without being counted, or a judged one that was swapped at all, cannot be found again."""

from __future__ import annotations

import numpy as np
import pytest

from rerankdistill.examples.build import ExampleOptions, build_examples, fitted_of
from rerankdistill.examples.relabel import relabelled, relabelling
from rerankdistill.examples.table import Examples
from rerankdistill.types import Judgement, Query, Scale

NAN = float("nan")
IDS = ["a", "b", "c", "d"]
SCORES = {"swapped": [1, 5, 2, 4.9], "kept": [9, 5, 2, 1], "judged": [1, 5, 2, 0], "dev": [1, 5, 2, 0]}
"""The label of each is on document a."""


@pytest.mark.parametrize(
    ("scores", "labels", "expected"),
    [
        ([1, 5, 2], [1, 0, 0], [0, 1, 0]),
        ([1, 5, 2], [2, 0, 1], [0, 2, 0]),
        ([5, 5, 2], [0, 1, 0], None),
        ([5, 5, 2], [0, 0, 1], [1, 0, 0]),
        ([NAN, 1, NAN], [1, 0, 0], [0, 1, 0]),
        ([NAN, NAN, NAN], [1, 0, 0], None),
        ([1, 5, 2], [0, 0, 0], None),
        ([1, 5, 2], [0, 1, 0], None),
    ],
)
def test_who_takes_the_label_over(scores, labels, expected):
    found = relabelled(np.array(scores, np.float32), np.array(labels, np.float32))
    assert (None if found is None else found.tolist()) == expected


def build(relabel, **options):
    queries = [Query(name, name) for name in SCORES]
    return build_examples(
        queries,
        dict.fromkeys(SCORES, IDS),
        [{name: np.array(row, np.float32) for name, row in SCORES.items()}],
        [Scale.LOGIT],
        [Judgement(name, "a", 1) for name in SCORES],
        ExampleOptions(combine="raw", relabel=relabel, **options),
        held_out={"dev"},
        presumed={"swapped", "kept", "dev"},
    )


@pytest.mark.parametrize(
    ("relabel", "swapped", "counts"),
    [
        ("none", set(), {}),
        ("teacher", {"swapped"}, {"presumed": 2, "relabelled": 1, "relabel_rate": 0.5}),
        ("all", {"swapped", "judged"}, {"presumed": 3, "relabelled": 2, "relabel_rate": 0.6667}),
    ],
)
def test_only_what_may_be_replaced_is_and_all_of_it_is_counted(relabel, swapped, counts):
    table = build(relabel)
    assert fitted_of(table) == counts
    for example in Examples(table):
        first = 1 if example.query_id in swapped else 0
        assert example.positive == first, example.query_id
        assert example.labels.tolist() == [float(column == first) for column in range(4)]


def test_what_the_query_came_from_is_a_negative_unless_it_scores_as_high():
    """Heights over the lowest score: d has 3.9 of b's 4 (0.975 > 0.95); a has none."""
    swapped = Examples(build("teacher"))[0]
    assert swapped.masked == (False, False, False, True)


def test_the_teachers_order_is_that_of_its_ensemble():
    """Two readings of one model, fused by their ranks: b is second and first, c first and third, a third and second."""
    raw = [{"q": np.array([1, 2, 3, 0], np.float32)}, {"q": np.array([-2, -1, -3, -4], np.float32)}]
    options = ExampleOptions(combine="rrf", relabel="teacher")
    scales = [Scale.LOGPROB, Scale.LOGIT]
    args = ([Query("q", "q")], {"q": IDS}, raw, scales, [Judgement("q", "a", 1)], options)
    table = build_examples(*args, presumed={"q"})
    assert Examples(table)[0].positive == 1
    assert relabelling(fitted_of(table)) == "the teacher's first document took the place of 1 of 1 positives (100%)"


def test_examples_from_before_stay_fresh():
    assert "relabel" not in ExampleOptions().model_dump()
