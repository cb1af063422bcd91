from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rerankdistill.candidates.choose import PARQUET, TREC, Candidates, choose, escape
from rerankdistill.errors import DamagedArtifact, DataError, MissingArtifact, RerankDistillWarning
from rerankdistill.types import Candidate, Run

BM25 = Run.from_hits("bm25", {"q1": [("a", 9.0), ("b", 8.0), ("c", 7.0)], "q2": [("z", 1.0)]})
FLAT = Run.from_hits("flat", {"q1": [("d", 0.9), ("a", 0.8), ("e", 0.7)], "q2": [("z", 0.5)]})

MERGED = [
    Candidate("q1", "a", 1, "bm25 flat"),
    Candidate("q1", "d", 2, "flat"),
    Candidate("q1", "b", 3, "bm25"),
    Candidate("q2", "z", 1, "bm25 flat"),
]


def test_merge_goes_by_best_rank_and_cuts_each_run_before() -> None:
    assert list(choose([BM25, FLAT], 2).rows()) == MERGED


def test_merge_does_not_depend_on_the_order_or_the_scores_of_the_runs() -> None:
    huge = Run(FLAT.name, FLAT.query_ids, FLAT.offsets, FLAT.vocabulary, FLAT.codes, FLAT.scores * 1e6)
    assert list(choose([huge, BM25], 2).rows()) == MERGED


def test_limit_cuts_after_the_merge() -> None:
    assert list(choose([BM25, FLAT], 2, limit=2).groups()) == [("q1", ["a", "d"]), ("q2", ["z"])]


def test_queries_without_candidates_are_named_and_all_of_them_is_an_error() -> None:
    empty = Run.from_hits("bm25", {"q1": [("a", 1.0)], "q2": [], "q3": []})
    with pytest.warns(RerankDistillWarning, match="2 of 3 queries have no candidates and are left out: 'q2', 'q3'"):
        assert choose([empty], 5).query_ids() == ["q1"]
    with pytest.warns(RerankDistillWarning, match="1 of 2 queries"):
        assert choose([BM25], 5, query_ids=["q9", "q2"]).query_ids() == ["q2"]
    with pytest.raises(DataError, match="not one of 2 queries"):
        choose([empty], 5, query_ids=["q2", "q9"])
    with pytest.raises(DataError, match="not one of 0"):
        choose([], 5)


def test_senseless_depth_and_twin_names_are_refused() -> None:
    with pytest.raises(DataError, match="at least 1"):
        choose([BM25], 0)
    with pytest.raises(DataError, match="same name"):
        choose([BM25, FLAT.renamed("bm25")], 2)


ids = st.text(st.characters(codec="utf-8"), min_size=1, max_size=6)
lists = st.dictionaries(ids, st.lists(ids, unique=True, min_size=1, max_size=6), min_size=1, max_size=4)


@settings(max_examples=40, deadline=None)
@given(first=lists, second=lists, depth=st.integers(1, 7))
def test_nothing_is_doubled_lost_or_invented(
    first: dict[str, list[str]], second: dict[str, list[str]], depth: int
) -> None:
    def as_run(name: str, ranked: dict[str, list[str]]) -> Run:
        return Run.from_hits(name, {q: [(d, -float(i)) for i, d in enumerate(ds)] for q, ds in ranked.items()})

    chosen = choose([as_run("one", first), as_run("two", second)], depth)
    found = dict(chosen.groups())
    assert list(found) == list(dict.fromkeys([*first, *second]))
    for query_id, doc_ids in found.items():
        assert len(set(doc_ids)) == len(doc_ids)
        assert set(doc_ids) == {*first.get(query_id, [])[:depth], *second.get(query_id, [])[:depth]}
    assert {q: [hit.doc_id for hit in hits] for q, hits in chosen.to_run()} == found


def test_saved_candidates_come_back_and_trec_ids_survive_white_space(tmp_path: Path) -> None:
    rows = [
        Candidate("q 1", "a\tb", 1, "bm25"),
        Candidate("q 1", "50%", 2, "flat"),
        Candidate("q2", "é\u2003x", 1, "bm25"),
    ]
    Candidates.from_rows(rows).save(tmp_path)
    assert list(Candidates.open(tmp_path).rows()) == rows
    lines = [line.split() for line in (tmp_path / TREC).read_text("utf-8").splitlines()]
    assert [len(line) for line in lines] == [6, 6, 6]
    assert [(unquote(line[0]), unquote(line[2]), int(line[3])) for line in lines] == [row[:3] for row in rows]
    assert [line[4] for line in lines] == ["2", "1", "1"], "scores strictly decrease within a query"


@given(ids)
def test_escaped_ids_have_no_white_space_and_come_back(name: str) -> None:
    assert len(escape(name).split()) == 1
    assert unquote(escape(name)) == name


def test_damaged_candidates_are_not_read_as_fewer(tmp_path: Path) -> None:
    with pytest.raises(MissingArtifact):
        Candidates.open(tmp_path)
    Candidates.from_rows(MERGED).save(tmp_path)
    whole = (tmp_path / PARQUET).read_bytes()
    (tmp_path / PARQUET).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DamagedArtifact, match="cannot be read"):
        Candidates.open(tmp_path)
    pq.write_table(pa.table({"query": ["q"]}), tmp_path / PARQUET)
    with pytest.raises(DamagedArtifact, match="no candidates"):
        Candidates.open(tmp_path)
