from __future__ import annotations

import numpy as np
import pytest

from rerankdistill.errors import (
    CardError,
    DamagedArtifact,
    DataError,
    MissingArtifact,
    RerankDistillWarning,
    ScaleError,
)
from rerankdistill.examples.build import ExampleOptions, build_examples, choose_positive, example_scale, false_negatives
from rerankdistill.examples.table import FILE, Examples, open_examples, save
from rerankdistill.types import Judgement, Query, Scale

NAN = float("nan")


def one(scores, grades=None, **options):
    """The example of a single query whose documents are a, b, c, …"""
    ids = [chr(ord("a") + column) for column in range(len(scores))]
    judgements = [Judgement("q", doc_id, grade) for doc_id, grade in (grades or {}).items()]
    raw = {"combine": "raw", **options}
    members = [{"q": np.asarray(scores, np.float32)}]
    return Examples(
        build_examples([Query("q", "text")], {"q": ids}, members, [Scale.LOGIT], judgements, ExampleOptions(**raw))
    )[0]


def test_a_row_by_hand():
    table = build_examples(
        [Query("q2", "two"), Query("q1", "one")],
        {"q1": ["x", "y"], "q2": ["y", "z", "w"]},
        [{"q1": np.array([1, 3]), "q2": np.array([4, 2, 0])}, {"q1": np.array([10, 30]), "q2": np.array([3, 1, 2])}],
        [Scale.LOGIT, Scale.LEXICAL],
        [Judgement("q1", "y", 2), Judgement("q1", "x", -1), Judgement("q2", "elsewhere", 1), Judgement("q9", "x", 1)],
    )
    second, first = Examples(table)
    assert second.query_id == "q2"
    assert second.positive == -1
    assert first.query == "one"
    assert first.doc_ids == ("x", "y")
    np.testing.assert_allclose(first.scores, [-1, 1])
    np.testing.assert_allclose(second.scores, [1.5**0.5, -(1.5**0.5) / 2, -(1.5**0.5) / 2])
    np.testing.assert_array_equal(first.labels, [0, 2])  # a grade below 0 is 0
    assert first.positive == 1
    assert first.means == (2, 20)
    assert first.stds == (1, 10)


@pytest.mark.parametrize(
    ("scores", "labels", "pseudo", "expected"),
    [
        ([5, 1, 2], [0, 1, 2], False, 2),
        ([5, 1, 2], [0, 2, 2], False, 2),
        ([5, NAN, 2], [0, 1, 0], False, 1),
        ([5, NAN, NAN], [0, 1, 1], False, 1),
        ([5, NAN, 2], [0, 1, 1], False, 2),
        ([1, 5, 5], [0, 0, 0], True, 1),
        ([1, 5, 5], [0, 0, 0], False, -1),
        ([NAN, NAN], [0, 0], True, -1),
        ([5, 1], [0, 1], True, 1),
    ],
)
def test_the_positive_is_the_best_label_then_the_teachers_favourite(scores, labels, pseudo, expected):
    assert choose_positive(np.array(scores, np.float32), np.array(labels, np.float32), pseudo) == expected


def test_documents_that_the_teacher_puts_beside_the_positive_are_no_negatives():
    example = one([-10.0, 0.0, -0.6, -0.4, 3.0, NAN], {"b": 1})
    # heights over the lowest: 0, 10, 9.4, 9.6, 13; .95 of the positive's is 9.5
    assert example.masked == (False, False, False, True, True, False)
    assert one([-10.0, 0.0, -0.4], {"b": 1}, denoise=None).masked == (False,) * 3


def test_a_document_that_a_judge_rejected_stays_a_negative_and_a_second_positive_is_left_to_the_loss():
    assert one([-10.0, 0.0, 3.0, 3.0, 3.0], {"b": 2, "c": 0, "d": 1}).masked == (False, False, False, False, True)


def test_without_a_scored_positive_nothing_is_masked():
    assert not any(one([1.0, 2.0, 3.0]).masked)
    assert not any(one([NAN, 2.0, 3.0], {"a": 1}).masked)
    assert false_negatives(np.array([1.0, 1.0, 2.0], np.float32), 0, 0.95).tolist() == [False, False, True]


def test_without_labels_the_teachers_top_document_may_stand_in():
    assert one([1.0, 9.0, 3.0], pseudo_positive="teacher").positive == 1
    assert one([1.0, 9.0, 3.0]).positive == -1


def test_a_query_without_candidates_is_left_out_and_named():
    candidates = {"q1": ["a", "b"], "q3": []}
    scores = {"q1": np.array([1.0, 2.0], np.float32)}
    queries = [Query("q3", ""), Query("q1", ""), Query("q2", "")]
    with pytest.warns(RerankDistillWarning, match=r"2 of 3 queries have no candidates .*first: q3"):
        table = build_examples(queries, candidates, [scores], [Scale.LOGIT], [])
    assert Examples(table).query_ids == ["q1"]
    with pytest.raises(DataError, match="none of 1 queries"):
        build_examples([Query("q2", "")], candidates, [scores], [Scale.LOGIT], [])


@pytest.mark.parametrize(
    ("scores", "message"),
    [([4.0], "one candidate"), ([NAN, NAN, NAN], "no teacher score"), ([2.0, 2.0, NAN], "same teacher score")],
)
def test_a_list_that_teaches_nothing_is_kept_and_named(scores, message):
    with pytest.warns(RerankDistillWarning, match=message):
        example = one(scores, {"a": 1}, combine="zscore")
    assert example.positive == 0
    assert len(example.doc_ids) == len(scores)


def test_a_member_that_lacks_a_query_or_a_document_is_told_once_for_all_queries():
    queries = [Query(f"q{i}", "") for i in range(5)]
    candidates = {f"q{i}": ["a", "b"] for i in range(5)}
    full = {f"q{i}": np.array([1.0, 2.0]) for i in range(5)}
    holed = {f"q{i}": np.array([1.0, NAN]) for i in range(4)}
    with pytest.warns(RerankDistillWarning) as seen:
        table = build_examples(queries, candidates, [full, holed], [Scale.LOGIT] * 2, [])
    assert [str(note.message).split(";")[0] for note in seen] == [
        "6 documents were scored by some members of the ensemble and not by others"
    ]
    assert np.isfinite(np.concatenate([example.scores for example in Examples(table)])).all()


def test_scores_that_do_not_fit_their_list_are_refused():
    with pytest.raises(DataError, match="1 teacher scores for 2 candidates"):
        build_examples([Query("q", "")], {"q": ["a", "b"]}, [{"q": np.ones(1)}], [Scale.LOGIT], [])
    with pytest.raises(DataError, match="'a' is listed twice"):
        build_examples([Query("q", "")], {"q": ["a", "a"]}, [{"q": np.ones(2)}], [Scale.LOGIT], [])
    with pytest.raises(DataError, match="infinite"):
        one([1.0, float("inf")])
    with pytest.raises(DataError, match="one scale per member"):
        build_examples([Query("q", "")], {"q": ["a", "b"]}, [{"q": np.ones(2)}], [], [])
    with pytest.raises(CardError, match="weights"):
        one([1.0, 2.0], weights=(1.0, 2.0))


def test_ranks_are_refused_unless_turned_into_numbers_by_name():
    with pytest.raises(ScaleError, match="ranks"):
        example_scale([Scale.RANK], ExampleOptions())
    assert example_scale([Scale.RANK], ExampleOptions(combine="raw")) is Scale.RANK
    assert example_scale([Scale.RANK], ExampleOptions(combine="raw", rank_to_score="depth")) is Scale.GRADE
    options = ExampleOptions(combine="raw", rank_to_score="depth")
    table = build_examples([Query("q", "")], {"q": ["a", "b"]}, [{"q": np.array([-7, -2])}], [Scale.RANK], [], options)
    np.testing.assert_array_equal(Examples(table)[0].scores, [1, 2])


def test_what_was_saved_is_read_back(tmp_path):
    queries = [Query(f"q{i}", f"tëxt {i}") for i in range(300)]
    candidates = {query.query_id: [f"d{(i * j) % 97}-{j}" for j in range(1, 6)] for i, query in enumerate(queries)}
    chance = np.random.default_rng(0)
    scores = {query.query_id: chance.normal(size=5).astype(np.float32) for query in queries}
    table = build_examples(queries, candidates, [scores], [Scale.LOGIT], [Judgement("q7", candidates["q7"][3], 1)])
    save(tmp_path, table)
    found = open_examples(tmp_path)
    assert len(found) == 300
    for row in (0, 7, -1):
        old, new = Examples(table)[row], found[row]
        assert (old.query_id, old.query, old.doc_ids) == (new.query_id, new.query, new.doc_ids)
        assert (old.positive, old.means, old.stds, old.masked) == (new.positive, new.means, new.stds, new.masked)
        np.testing.assert_array_equal(old.scores, new.scores)
        assert new.scores.dtype == new.labels.dtype == np.float32
    assert found[7].positive == 3
    assert [example.query_id for example in found[10:13]] == ["q10", "q11", "q12"]
    assert sum(1 for _ in found) == 300
    with pytest.raises(IndexError):
        found[300]


@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.99])
def test_a_truncated_file_is_one_clear_error(tmp_path, keep):
    scores = {"q": np.arange(9.0)}
    path = save(tmp_path, build_examples([Query("q", "")], {"q": list("abcdefghi")}, [scores], [Scale.LOGIT], []))
    whole = path.read_bytes()
    path.write_bytes(whole[: keep if isinstance(keep, int) else int(keep * len(whole))])
    with pytest.raises(DamagedArtifact, match="cannot be read"):
        open_examples(tmp_path)


def test_missing_and_foreign_files_are_clear_errors(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pytest.raises(MissingArtifact):
        open_examples(tmp_path)
    pq.write_table(pa.table({"a": [1]}), tmp_path / FILE)
    with pytest.raises(DamagedArtifact, match="columns are a"):
        open_examples(tmp_path)
