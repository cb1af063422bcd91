"""TREC files: what is written is read by everyone alike, and what is read is checked line by line."""

from __future__ import annotations

import gzip

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rerankdistill.errors import ArtifactError, DataError, RerankDistillWarning
from rerankdistill.runs.trec import decode_id, encode_id, read_qrels, read_run, write_run
from rerankdistill.types import Judgement, Run

ids = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
scores = st.floats(-1e30, 1e30)
runs = st.dictionaries(ids, st.dictionaries(ids, scores, max_size=8), max_size=5)


def ranking(run: Run) -> dict[str, list[str]]:
    return {query_id: [hit.doc_id for hit in hits] for query_id, hits in run if hits}


def trec_eval_ranking(path) -> dict[str, list[str]]:
    """As trec_eval orders: 32-bit scores, equal ones by doc_id descending, the rank column unread."""
    rows: dict[str, list[tuple[np.float32, str]]] = {}
    with gzip.open(path, "rt", encoding="utf-8", newline="\n") as file:
        for line in file:
            query_id, _, doc_id, _, score, _ = line.rstrip("\n").split(" ")
            rows.setdefault(query_id, []).append((np.float32(score), doc_id))
    return {query_id: [doc for _, doc in sorted(hits, reverse=True)] for query_id, hits in rows.items()}


@given(ids)
def test_every_id_survives_and_is_one_word(name):
    coded = encode_id(name)
    assert decode_id(coded) == name
    assert coded.split() == [coded]


def test_percent_signs_are_left_alone_where_nothing_could_misread_them():
    assert encode_id("100%") == "100%"
    assert encode_id("a%20b") == "a%2520b"
    assert encode_id("a b") == "a%20b"
    for foreign in ("%41", "%ff", "%zz", "%c3%a9"):
        assert decode_id(foreign) == foreign


@settings(deadline=None)
@given(runs)
def test_every_tool_sees_our_ranking(tmp_path_factory, hits):
    path = tmp_path_factory.mktemp("run") / "r.trec.gz"
    run = Run.from_hits("a run", {query: found.items() for query, found in hits.items()})
    write_run(path, run)
    assert trec_eval_ranking(path) == {
        encode_id(query): [encode_id(doc) for doc in docs] for query, docs in ranking(run).items()
    }
    if len(run):
        again = read_run(path)
        assert ranking(again) == ranking(run)
        assert again.name == "a run"
        for (_, left), (_, right) in zip(again, (row for row in run if row[1]), strict=True):
            given_scores = np.asarray([hit.score for hit in right])
            assert np.allclose([hit.score for hit in left], given_scores, rtol=1e-5, atol=1e-6)


def test_a_long_tie_is_written_strictly_decreasing_and_pushes_nothing_out_of_order(tmp_path):
    hits = {f"d{n:04}": 1.0 for n in range(2000)} | {"z": np.nextafter(1.0, 0), "zz": 0.5}
    run = Run.from_hits("r", {"q": hits.items()})
    write_run(tmp_path / "r.trec", run)
    written = [np.float32(line.split()[4]) for line in (tmp_path / "r.trec").read_text().splitlines()]
    assert (np.diff(written) < 0).all()
    assert ranking(read_run(tmp_path / "r.trec")) == ranking(run)
    assert abs(written[2000] - 1) < 2e-4


def test_equal_runs_are_equal_files(tmp_path):
    run = Run.from_hits("r", {"q": [("d", 1.0)]})
    for name in ("a.gz", "b.gz"):
        write_run(tmp_path / name, run)
    assert (tmp_path / "a.gz").read_bytes() == (tmp_path / "b.gz").read_bytes()


def test_reading_keeps_equal_scores_equal_and_ignores_the_rank_column(tmp_path):
    path = tmp_path / "r.trec"
    path.write_text("q Q0 a 3 2.5 t\nq Q0 c 1 1 t\nq2 Q0 a 1 7 t\nq Q0 b 2 2.5 t\n\n")
    assert read_run(path).hits() == {"q": [("a", 2.5), ("b", 2.5), ("c", 1.0)], "q2": [("a", 7.0)]}
    assert read_run(path, "mine").name == "mine"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"q Q0 d 1 2.0 t\nq Q0 d 1 2.0\n", r":2: 5 columns"),
        (b"q Q0 d 1 2.0 t u\n", r":1: 7 columns"),
        (b"q Q0 d 1 2.0 t\n\nq Q0 e 1 high t\n", r":3: .*'high' is no number"),
        (b"q Q0 d 1 nan t\n", r":1: .*'nan' is no number"),
        (b"q Q0 d 1 2.0 t\nq Q0 \xff 1 2.0 t\n", r":2: not UTF-8 \(byte 5"),
        (b"q Q0 d 1 2.0 t\nq Q0 d 2 1.0 t\n", r":2: document 'd' is listed twice for query 'q'"),
        (gzip.compress(b"q Q0 d 1 2.0 t\n", mtime=0)[:-6], "gzip stream is broken"),
    ],
)
def test_a_bad_line_of_a_run_is_named(tmp_path, content, message):
    path = tmp_path / "r.trec"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_run(path)


def test_files_that_are_none_of_it_are_refused(tmp_path):
    with pytest.raises(DataError, match="No such file"):
        read_run(tmp_path / "missing.trec")
    (tmp_path / "plain.gz").write_text("q Q0 d 1 2.0 t\n")
    with pytest.raises(DataError, match="not gzip"):
        read_run(tmp_path / "plain.gz")
    (tmp_path / "empty.trec").write_text("")
    with pytest.warns(RerankDistillWarning, match="empty"):
        assert len(read_run(tmp_path / "empty.trec")) == 0


def test_a_byte_order_mark_and_windows_line_ends_are_no_part_of_an_id(tmp_path):
    (tmp_path / "r").write_bytes(b"\xef\xbb\xbfq Q0 d\xc2\xa0e 1 2.0 t\r\n")
    assert read_run(tmp_path / "r").hits() == {"q": [("d\xa0e", 2.0)]}


@pytest.mark.parametrize("score", [np.nan, np.inf, 1e300])
def test_a_score_that_other_tools_cannot_read_is_not_written_and_nothing_is_left(tmp_path, score):
    path = tmp_path / "r.trec"
    path.write_text("before")
    with pytest.raises(DataError, match="query 'q'"):
        write_run(path, Run.from_hits("r", {"p": [("x", 1.0)], "q": [("d", score)]}))
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(DataError, match="empty id"):
        write_run(path, Run.from_hits("r", {"q": [("", 1.0)]}))


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    path, run = tmp_path / "r.trec", Run.from_hits("r", {"q": [("d", 1.0)]})
    write_run(path, run)
    before = path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr("rerankdistill.runs.trec._lines", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
        with pytest.raises(ArtifactError, match="No space left"):
            write_run(path, run)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_qrels_in_both_forms(tmp_path):
    (tmp_path / "trec").write_text("# a comment\n1 0 d1 2\n1 0 CR#2 -1\n2\t0\td1\t0\n")
    assert read_qrels(tmp_path / "trec") == [("1", "d1", 2), ("1", "CR#2", -1), ("2", "d1", 0)]
    with gzip.open(tmp_path / "beir.tsv.gz", "wt") as file:
        file.write("query-id\tcorpus-id\tscore\n1\td 1\t1\n")
    assert read_qrels(tmp_path / "beir.tsv.gz") == [Judgement("1", "d 1", 1)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("1 0 d1 x\n", r":1: the grade 'x' is no integer"),
        ("1 0 d1 0.5\n", r":1: the grade '0.5' is no integer"),
        ("1 0 d1 1\n1 d2 1\n", r":2: 3 columns"),
        ("1 d1 1\n", "header line"),
        ("q\td\ts\n1\td1\t1\t2\n", r":2: 4 columns"),
        ("1 0 d1 1\n2 0 d1 1\n1 0 d1 0\n", r":3: .*judged 1 before and 0 here"),
        ("\n", "no judgements"),
    ],
)
def test_a_bad_line_of_qrels_is_named(tmp_path, content, message):
    (tmp_path / "q").write_text(content)
    with pytest.raises(DataError, match=message):
        read_qrels(tmp_path / "q")


def test_a_repeated_judgement_counts_once_with_a_warning(tmp_path):
    (tmp_path / "q").write_text("1 0 d 1\n1 0 d 1\n")
    with pytest.warns(RerankDistillWarning, match="1 judgements are repeated"):
        assert read_qrels(tmp_path / "q") == [Judgement("1", "d", 1)]


@pytest.mark.realdata
def test_trec_evals_own_sample_files_are_read(data):
    folder = data / "_eval-fixtures/trec_eval"
    run, qrels = read_run(folder / "results.test.gz"), read_qrels(folder / "qrels.test.gz")
    with gzip.open(folder / "results.test.gz", "rt") as file:
        assert len(run) == sum(1 for _ in file)
    assert read_qrels(folder / "qrels.test.with-comments.gz")[0] == qrels[0]
    judged = {judgement.query_id for judgement in qrels}
    assert judged & set(run.query_ids)
