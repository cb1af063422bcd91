"""The arm that is taught nonsense gets nonsense: rows move, none is lost, and labels stay."""

from __future__ import annotations

import numpy as np

from rerankdistill.pipeline.card import StageCard
from rerankdistill.pipeline.learning import Arm, is_shuffled
from rerankdistill.pipeline.vectors import Chained


def test_shuffled_vectors_are_the_same_rows_in_other_places() -> None:
    parts = [np.arange(8, dtype=np.float32).reshape(4, 2), np.arange(8, 14, dtype=np.float32).reshape(3, 2)]
    order = np.array([6, 0, 5, 1, 4, 2, 3])
    plain, moved = Chained(parts), Chained(parts, order)
    everything = list(range(7))
    assert np.array_equal(moved[everything], plain[everything][order])
    assert len(moved) == 7
    assert moved[[0, 0]].tolist() == [[12, 13], [12, 13]]


def test_shuffled_scores_leave_the_vectors_alone() -> None:
    match, lists = StageCard(match="minilm", loss="embed_cosine"), StageCard()
    found = {
        role: (is_shuffled(Arm("s", role, 1, ()), match), is_shuffled(Arm("s", role, 1, ()), lists))
        for role in ("student", "control", "shuffled-scores", "shuffled-teacher")
    }
    assert found == {
        "student": (False, False),
        "control": (False, False),
        "shuffled-scores": (False, True),
        "shuffled-teacher": (True, True),
    }
