"""What was said beside scores must stay with its documents on the way from a store to a file and back."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest

from rerankdistill.errors import DamagedArtifact, DataError
from rerankdistill.examples.build import ExampleOptions, build_examples
from rerankdistill.examples.details import Said, with_logits, with_preferences
from rerankdistill.examples.table import FILE, open_examples, save
from rerankdistill.types import Query, Scale

NAN = float("nan")
LISTS = {"q1": ["a", "b", "c", "d"], "q2": ["d", "a"], "q3": ["a", "b"]}


def table():
    scores = {query_id: np.arange(len(doc_ids), dtype=np.float32) for query_id, doc_ids in LISTS.items()}
    queries = [Query(query_id, "text") for query_id in LISTS]
    return build_examples(queries, LISTS, [scores], [Scale.LOGIT], [], ExampleOptions(combine="raw"))


def square(*rows):
    return np.asarray(rows, np.float32)


def test_preferences_of_a_reordered_part_of_a_list_land_on_its_own_columns(tmp_path):
    said = {
        "q1": Said(["d", "b", "elsewhere"], square([NAN, 0.9, 0.3], [0.2, NAN, 0.4], [0.7, NAN, NAN])),
        "q2": Said(["d", "a"], square([0.5, 1.0], [NAN, 0.5])),
    }
    save(tmp_path, with_preferences(table(), said))
    first, second, third = (one.preferences for one in open_examples(tmp_path))
    expected = np.full((4, 4), np.nan, np.float32)
    expected[3, 1], expected[1, 3] = 0.9, 0.2
    np.testing.assert_array_equal(first, expected)
    np.testing.assert_array_equal(second, square([NAN, 1.0], [NAN, NAN]))  # nothing is better than itself
    assert third.shape == (2, 2)
    assert np.isnan(third).all()


def test_logits_keep_their_document_and_their_order(tmp_path):
    rows = np.arange(8, dtype=np.float32).reshape(4, 2)
    save(tmp_path, with_logits(table(), {"q1": Said(LISTS["q1"], rows), "q2": Said(LISTS["q2"], rows[:2])}))
    first, second, third = open_examples(tmp_path)
    np.testing.assert_array_equal(first.logits, rows)
    np.testing.assert_array_equal(second.logits, rows[:2])
    assert np.isnan(third.logits).all()
    assert first.preferences is None


def test_examples_of_scores_alone_are_the_files_they_were(tmp_path):
    save(tmp_path, table())
    assert open_examples(tmp_path)[0].preferences is open_examples(tmp_path)[0].logits is None
    assert "preferences" not in pq.read_schema(tmp_path / FILE).names


def test_a_file_with_a_column_that_nobody_knows_is_refused(tmp_path):
    pq.write_table(with_logits(table(), {}).rename_columns([*table().column_names, "odd"]), tmp_path / FILE)
    with pytest.raises(DamagedArtifact, match="odd"):
        open_examples(tmp_path)


def test_what_does_not_fit_its_list_is_refused():
    with pytest.raises(DataError, match="preferences of shape"):
        with_preferences(table(), {"q1": Said(["a", "b"], np.zeros((2, 3), np.float32))})
    with pytest.raises(DataError, match="logits of shape"):
        with_logits(table(), {"q1": Said(LISTS["q1"], np.zeros((2, 2), np.float32))})
    with pytest.raises(DataError, match="no two documents"):
        with_preferences(table(), {"q1": Said(["a", "b"], np.full((2, 2), NAN, np.float32))})
