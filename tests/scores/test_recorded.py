"""Published scores: three formats, joined by ids; a wrong line is named."""

from __future__ import annotations

import gzip

import numpy as np
import pytest

from rerankdistill.errors import DataError
from rerankdistill.scores.card import Context, parse_teacher
from rerankdistill.scores.kinds.recorded import Kind
from rerankdistill.types import Group, Query, Scale

TREC = "q1 Q0 d1 1 3.5 run\nq1 Q0 d2 2 2.5 run\nq2 Q0 d1 1 -1 run\n"
TSV = "q1\td1\t3.5\nq1\td2\t2.5\nq2\td1\t-1\n"
MARGIN = "3.5\t2.5\tq1\td1\td2\n-1\t0.25\tq2\td1\td3\n3.5\t1\tq1\td1\td4\n"


def teacher(path, text, **more):
    path.write_text(text, "utf-8")
    return Kind(path, Scale.LOGIT, **more)


def ask(kind, query_id, *doc_ids):
    return kind.judge([Group(Query(query_id, ""), doc_ids, ("",) * len(doc_ids))])[0]


@pytest.mark.parametrize("text", [TREC, TSV, TSV.replace("\t", " "), MARGIN, "query_id\tdoc_id\tscore\n" + TSV])
@pytest.mark.parametrize("packed", [False, True])
def test_every_format_is_told_by_looking_plain_or_packed(tmp_path, text, packed):
    kind = teacher(tmp_path / "scores", text)
    if packed:
        (tmp_path / "scores").write_bytes(gzip.compress(text.encode()))
    assert ask(kind, "q1", "d2", "d1").tolist() == [2.5, 3.5]
    assert ask(kind, "q2", "d1").tolist() == [-1.0]


def test_positive_and_negative_of_margin_mse_are_not_swapped(tmp_path):
    kind = teacher(tmp_path / "teacher.tsv", MARGIN)
    assert ask(kind, "q1", "d1", "d2", "d4").tolist() == [3.5, 2.5, 1.0]
    assert ask(kind, "q2", "d3").tolist() == [0.25]


def test_a_pair_the_file_lacks_is_nan_and_not_a_neighbours_score(tmp_path):
    found = ask(teacher(tmp_path / "s", MARGIN), "q2", "d2", "d1", "unknown")
    assert np.array_equal(found, np.array([np.nan, -1, np.nan], np.float32), equal_nan=True)
    assert np.isnan(ask(teacher(tmp_path / "s", MARGIN), "unknown", "d1")).all()


def test_two_different_scores_of_one_pair_are_refused_with_both_lines(tmp_path):
    with pytest.raises(DataError, match=r"'q1', document 'd1' has two scores: 3\.5 and 3\.6") as error:
        teacher(tmp_path / "s", MARGIN + "\n3.6\t2\tq1\td1\td9\n").scores  # noqa: B018
    assert "lines 3 and 5" in str(error.value)
    assert len(teacher(tmp_path / "s", MARGIN + "3.5000001\t2.5\tq1\td1\td2\n").scores) == 5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("q1\td1\t3.5\nq1\td2\n", "line 2"),
        ("q1\td1\t3.5\nq1\td2\thigh\n", "line 2"),
        ("q1\td1\tnan\nq1\td2\t1\n", "line 1"),
        ("q1 Q0 d1 1 inf run\n", "line 1"),
        ("one two\n", "2 fields"),
        ("", "no score"),
        ("query_id\tdoc_id\tscore\n", "no score"),
    ],
)
def test_a_line_that_is_no_score_is_named(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        teacher(tmp_path / "s", text).scores  # noqa: B018


def test_a_broken_gz_and_bytes_that_are_not_utf8_are_one_clear_error(tmp_path):
    path = tmp_path / "s.gz"
    path.write_bytes(gzip.compress(TSV.encode() * 500)[:-20])
    with pytest.raises(DataError, match="gz is broken"):
        Kind(path, Scale.LOGIT).scores  # noqa: B018
    path.write_bytes(b"q1\td1\t3.5\nq\xff\td1\t1\n")
    path = path.rename(tmp_path / "s")
    with pytest.raises(DataError, match="not UTF-8"):
        Kind(path, Scale.LOGIT).scores  # noqa: B018


def test_the_fingerprint_follows_the_content_and_not_the_place(tmp_path):
    first = teacher(tmp_path / "a", TSV).fingerprint
    assert teacher(tmp_path / "b", TSV).fingerprint == first
    assert teacher(tmp_path / "b", TSV + "q9\td9\t1\n").fingerprint != first


def test_a_card_opens_it_beside_the_given_folder(tmp_path):
    (tmp_path / "scores.tsv").write_text(TSV)
    data = {"name": "r", "kind": "recorded", "scale": "rank", "options": {"path": "scores.tsv"}}
    kind = Kind.open(parse_teacher(data, "r.toml"), Context(base=tmp_path))
    assert kind.scale is Scale.RANK
    assert ask(kind, "q1", "d1").tolist() == [3.5]
    with pytest.raises(DataError, match="no such scores file"):
        Kind.open(parse_teacher(data, "r.toml"), Context(base=tmp_path / "elsewhere"))


@pytest.mark.realdata
def test_the_published_order_of_rankzephyr_is_read_whole(data):
    kind = Kind(data / "_teacher-samples" / "rank-distillm-rankzephyr.100-train-queries.run.gz", Scale.RANK)
    assert len(kind.scores) == 10_000
    assert ask(kind, "1002990", "3227618", "3227616", "2625224").tolist() == [100, 99, 96]
