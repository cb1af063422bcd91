from __future__ import annotations

import gzip
import json
import math
import shutil
from pathlib import Path

import pytest

from rerankdistill import artifacts
from rerankdistill.collections import documents, load_collection
from rerankdistill.errors import DataError, RerankDistillWarning
from rerankdistill.types import Doc, Judgement, Query, View


def test_beir_folder_reads_as_it_was_written(folder: Path) -> None:
    source = load_collection(str(folder))
    assert list(source.docs())[1] == Doc("d2", "A lazy dog sleeps — déjà vu.", "")
    assert list(source.doc_ids()) == ["d1", "d2", "d3"]
    assert source.texts(["d3", "d1"], View.TITLE_TEXT) == ["Hen Hens lay eggs.", "Fox The quick fox jumps."]
    assert source.texts(["d1"], View.TEXT) == ["The quick fox jumps."]
    assert source.splits() == ("train", "test")
    assert source.queries("test") == [Query("q1", "what does the fox do"), Query("q2", "who sleeps")]
    assert list(source.judgements("test")) == [Judgement("q1", "d1", 1), Judgement("q2", "d2", 2)]
    assert source.runs("test") == {}


def test_large_plain_files_are_sought_and_read_the_same(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (folder / "corpus.jsonl").read_text("utf-8")
    (folder / "corpus.jsonl").write_text("\ufeff" + text.replace("\n", "\r\n\n \n"), "utf-8")
    held = documents.open_documents(folder / "corpus.jsonl")
    monkeypatch.setattr(documents, "HOLD_BYTES", 0)
    sought = documents.open_documents(folder / "corpus.jsonl")
    assert isinstance(held, documents.Held)
    assert isinstance(sought, documents.Sought)
    assert list(sought) == list(held)
    assert sought.fingerprint == held.fingerprint
    assert [sought.find(doc_id) for doc_id in held.ids] == list(held)
    assert sought.find("nobody") is None
    artifacts.write_text(folder / "corpus.jsonl", "another file in its place\n")
    assert [sought.find(doc_id) for doc_id in held.ids] == list(held), "who has it open reads on in it"


def test_tsv_and_trec_files_mean_the_same_as_beir_files(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    (other / "qrels").mkdir(parents=True)
    docs = load_collection(str(folder)).docs()
    (other / "docs.tsv").write_text("".join(f"{d.doc_id}\t{d.title}\t{d.text}\n" for d in docs), "utf-8")
    (other / "queries.test.tsv").write_text("q1\twhat does the fox do\nq2\twho sleeps\n", "utf-8")
    (other / "queries.train.tsv").write_text("q3\twho lays eggs\n", "utf-8")
    (other / "qrels/test.trec").write_text("q1 0 d1 1\nq2 0 d2 2\n", "utf-8")
    (other / "qrels/train.txt").write_text("q3\t0\td3\t1\n", "utf-8")
    first, second = load_collection(str(folder)), load_collection(str(other))
    for split in ("train", "test"):
        assert second.queries(split) == first.queries(split)
        assert list(second.judgements(split)) == list(first.judgements(split))
    assert list(second.docs()) == list(first.docs())


def test_fingerprint_ignores_place_and_compression(folder: Path, tmp_path: Path) -> None:
    before = load_collection(str(folder)).fingerprint
    moved = tmp_path / "elsewhere"
    shutil.copytree(folder, moved)
    assert load_collection(str(moved)).fingerprint == before
    for path in [*moved.glob("*.jsonl"), *moved.glob("qrels/*")]:
        path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    assert load_collection(str(moved)).fingerprint == before


@pytest.mark.parametrize(
    ("file", "old", "new", "changed"),
    [
        ("corpus.jsonl", "lay eggs", "laid eggs", {"docs"}),
        ("queries.jsonl", "who sleeps", "who slept", {"queries test"}),
        ("qrels/test.tsv", "d2\t2", "d2\t1", {"judgements test"}),
        ("qrels/train.tsv", "d3\t1", "d3\t2", {"judgements train"}),
    ],
)
def test_one_change_changes_only_the_fingerprints_that_depend_on_it(
    folder: Path, file: str, old: str, new: str, changed: set[str]
) -> None:
    def marks() -> dict[str, str]:
        source = load_collection(str(folder))
        found = {"all": source.fingerprint, "docs": source.docs_fingerprint()}
        for split in ("train", "test"):
            found[f"queries {split}"] = source.queries_fingerprint(split)
            found[f"judgements {split}"] = source.judgements_fingerprint(split)
        return found

    before = marks()
    text = (folder / file).read_text("utf-8")
    (folder / file).write_text(text.replace(old, new), "utf-8")
    after = marks()
    assert {name for name in before if before[name] != after[name]} == changed | {"all"}


def test_splits_can_be_named_by_file_or_by_name(folder: Path) -> None:
    (folder / "qrels_full.trec.gz").write_bytes(gzip.compress(b"q1 0 d3 1\n"))
    assert load_collection(str(folder)).splits() == ("train", "test", "full")
    for name in ("qrels_full.trec.gz", "full"):
        source = load_collection(str(folder), splits={"test": name})
        assert source.splits() == ("test",)
        assert list(source.judgements("test")) == [Judgement("q1", "d3", 1)]
    with pytest.raises(DataError, match="no judgements are called 'fulll'"):
        load_collection(str(folder), splits={"test": "fulll"})


CANDIDATES = {
    "qid": "q1",
    "query": "what does the fox do",
    "docs": [
        {"docid": "b", "rank": 2, "score": 3.0, "text": "two"},
        {"docid": "a", "rank": 3, "score": 3.0, "text": "three", "relevance": 2},
        {"docid": "c", "rank": 1, "score": 4.0, "text": "one", "relevance": 0},
    ],
}


def test_candidates_alone_are_a_collection_and_keep_the_files_ranks(tmp_path: Path) -> None:
    (tmp_path / "candidates.first.jsonl").write_text(json.dumps(CANDIDATES) + "\n", "utf-8")
    source = load_collection(str(tmp_path))
    assert list(source.runs("test")) == ["first"]
    [(query_id, hits)] = list(source.runs("test")["first"])
    assert query_id == "q1"
    assert [hit.doc_id for hit in hits] == ["c", "b", "a"], "a tie must not reorder what the file ranked"
    assert [hit.score for hit in hits] == [4.0, 3.0, math.nextafter(3.0, 0)]
    assert source.texts(["c", "a"], View.TITLE_TEXT) == ["one", "three"]
    assert list(source.judgements("test")) == [Judgement("q1", "a", 2), Judgement("q1", "c", 0)]


def test_scores_that_rise_down_the_list_cannot_reorder_it(tmp_path: Path) -> None:
    rows = [{"docid": name, "score": score, "text": "t"} for name, score in (("x", 0.1), ("y", 0.9), ("z", 0.5))]
    line = {"qid": "1", "query": "q", "docs": rows}
    (tmp_path / "candidates.jsonl").write_text(json.dumps(line) + "\n", "utf-8")
    [(_, hits)] = list(load_collection(str(tmp_path)).runs("test")["candidates"])
    assert hits == [("x", 3.0), ("y", 2.0), ("z", 1.0)]


def read_all(folder: Path) -> None:
    source = load_collection(str(folder))
    list(source.docs())
    source.queries("test")
    list(source.judgements("test"))


@pytest.mark.parametrize(
    ("file", "content", "says", "line"),
    [
        ("corpus.jsonl", b"", "no documents", ""),
        (
            "corpus.jsonl",
            b'{"_id": "d1", "text": "a"}\n{"_id": "d1", "text": "b"}\n',
            "duplicate document id 'd1'",
            ":2",
        ),
        ("corpus.jsonl", b'{"_id": "d1", "text": "a"}\n{"_id": "d2", "text": "\xe9"}\n', "not UTF-8", ":2"),
        ("corpus.jsonl", b'{"_id": "d1", "text": "a"}\n{"_id": \n', "not JSON", ":2"),
        ("corpus.jsonl", b'["d1"]\n', "expected a JSON object", ":1"),
        ("corpus.jsonl", b'{"_id": "d1", "body": "a"}\n', "missing field 'text'", ":1"),
        ("corpus.jsonl", b'{"_id": "d1", "text": ["a"]}\n', "field 'text' is not text", ":1"),
        ("queries.jsonl", b"", "no queries", ""),
        ("queries.jsonl", b'{"_id": "q1", "text": "a"}\n\n{"_id": "q1", "text": "b"}\n', "duplicate query id", ":3"),
        ("queries.jsonl", b'{"_id": "q1", "text": " "}\n', "needs an id and a text", ":1"),
        ("qrels/test.tsv", b"query-id\tcorpus-id\tscore\nq1\td1\n", "expected 3 tab-separated columns, found 2", ":2"),
        ("qrels/test.tsv", b"q1\td1\t1\nq2\td2\tgood\n", "grade 'good' is not an integer", ":2"),
        ("qrels/test.tsv", b"q1\td1\t1\nq1\td1\t0\n", "judged twice", ":2"),
        ("qrels/test.tsv", b"query-id\tcorpus-id\tscore\n", "no judgements", ""),
        ("qrels/test.tsv", b"x\td1\t1\n", "not one query", ""),
        ("qrels/test.tsv", b"q1\tx\t1\n", "not one document", ""),
    ],
)
def test_bad_file_is_one_clear_error_with_its_line(
    folder: Path, file: str, content: bytes, says: str, line: str
) -> None:
    (folder / file).write_bytes(content)
    with pytest.raises(DataError, match=says) as error:
        read_all(folder)
    assert f"{Path(file).name}{line}" in error.value.where or error.value.where == str(folder)


@pytest.mark.parametrize(
    "damage", [lambda raw: raw[:-12], lambda raw: b"not gz at all", lambda raw: raw[:30] + b"\0" * 9 + raw[39:]]
)
def test_broken_gz_is_no_short_collection(folder: Path, damage) -> None:  # type: ignore[no-untyped-def]
    plain = folder / "corpus.jsonl"
    (folder / "corpus.jsonl.gz").write_bytes(damage(gzip.compress(plain.read_bytes() * 1)))
    plain.unlink()
    with pytest.raises(DataError, match="broken gz"):
        list(load_collection(str(folder)).docs())


def test_strangers_in_the_judgements_are_counted_in_one_warning(folder: Path) -> None:
    (folder / "qrels/test.tsv").write_text("q1\td1\t1\nq1\tgone\t1\nq9\td1\t1\n", "utf-8")
    source = load_collection(str(folder))
    with pytest.warns(
        RerankDistillWarning, match=r"1 unknown queries \('q9'\).*1 unknown documents \('gone'\)"
    ) as said:
        judged = list(source.judgements("test"))
    assert judged == [Judgement("q1", "d1", 1), Judgement("q1", "gone", 1)]
    source.queries("test")
    assert source.fingerprint
    assert len(said) == 1


def test_no_split_and_no_folder_say_what_there_is(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no judgements for split 'dev'; it has judgements for: train, test"):
        list(load_collection(str(folder)).judgements("dev"))
    with pytest.raises(DataError, match="no document is called 'd9'"):
        load_collection(str(folder)).texts(["d9"], View.TEXT)
    with pytest.raises(DataError, match="no such folder"):
        load_collection(str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match="not a folder"):
        load_collection(str(folder / "corpus.jsonl"))
    with pytest.raises(DataError, match="neither documents nor candidates"):
        load_collection(str(tmp_path))
    (folder / "corpus.tsv").write_text("d1\ttext\n", "utf-8")
    with pytest.raises(DataError, match="several files could be the documents"):
        load_collection(str(folder))


def test_queries_are_all_there_where_nobody_judged(folder: Path) -> None:
    shutil.rmtree(folder / "qrels")
    source = load_collection(str(folder))
    assert source.splits() == ()
    assert [query.query_id for query in source.queries("test")] == ["q1", "q2", "q3"]


GOLDEN = {
    "scifact": (
        5183, {0: ("4983", 1809), 9: ("70490", 486), -1: ("198309074", 1681)},
        "test", 300, 339, {0: ("1", "31715818", 1), -1: ("1395", "17717391", 1)},
    ),
    "cranfield": (
        1400, {0: ("1", 902), 9: ("10", 329), -1: ("1400", 664)},
        "test", 225, 1837, {0: ("1", "184", 3), -1: ("225", "1188", 0)},
    ),
    "trec-dl19": (
        14581, {0: ("1000485", 401), 9: ("1005341", 300), -1: ("999644", 258)},
        "test", 43, 4337, {0: ("19335", "1160863", 0), -1: ("1133167", "8839920", 2)},
    ),
}  # fmt: skip


@pytest.mark.realdata
@pytest.mark.parametrize("name", GOLDEN)
def test_real_collection_is_neither_cut_nor_reordered(data: Path, name: str) -> None:
    count, docs, split, queries, judged, judgements = GOLDEN[name]
    source = load_collection(str(data / name))
    found = list(source.docs())
    assert len(found) == len(source.doc_ids()) == count
    for place, (doc_id, length) in docs.items():
        assert (found[place].doc_id, len(found[place].text)) == (doc_id, length)
        assert source.texts([doc_id], View.TEXT) == [found[place].text]
    assert len(source.queries(split)) == queries
    rows = list(source.judgements(split))
    assert len(rows) == judged
    assert all(tuple(rows[place]) == row for place, row in judgements.items())


@pytest.mark.realdata
def test_trec_dl19_offers_the_published_bm25_candidates(data: Path) -> None:
    source = load_collection(str(data / "trec-dl19"), splits={"test": "qrels_full.trec.gz"})
    with pytest.warns(RerankDistillWarning, match="4802 unknown documents"):
        grades = {(row.query_id, row.doc_id): row.grade for row in source.judgements("test")}
    assert len(grades) == 9260
    runs = source.runs("test")
    assert {"bm25", "rep_llama", "rep_llama.run", "colbert"} <= set(runs)
    assert len(runs["bm25"].query_ids) == 43
    assert len(runs["bm25"]) == 4300
    for name, published in {"bm25": 0.5058, "bm25_rm3": 0.5216, "rep_llama": 0.7439}.items():
        values = [ndcg(hits, query_id, grades) for query_id, hits in runs[name]]
        assert sum(values) / 43 == pytest.approx(published, abs=5e-5)


def ndcg(hits, query_id, grades, depth=10):  # type: ignore[no-untyped-def]
    discounts = [1 / math.log2(rank + 2) for rank in range(depth)]
    ideal = sorted((grade for (judged, _), grade in grades.items() if judged == query_id), reverse=True)
    gained = [grades.get((query_id, hit.doc_id), 0) for hit in hits[:depth]]
    return sum(map(math.prod, zip(gained, discounts))) / sum(map(math.prod, zip(ideal, discounts)))  # noqa: B905


def test_all_queries_open_no_judgements(folder: Path) -> None:
    (folder / "qrels/test.tsv").write_bytes(b"\xff damaged")
    assert [query.query_id for query in load_collection(str(folder)).all_queries()] == ["q1", "q2", "q3"]
