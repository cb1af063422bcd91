"""A figure that the test data had a hand in is no figure."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
from helpers_pipeline import card_of, evaluate, figures, train
from mini_pipeline import TEST, TOPICS, write_collection

from rerankdistill.collections.folder import FolderCollection
from rerankdistill.errors import DataError
from rerankdistill.pipeline import proof


def test_training_never_opens_the_test_judgements(mini, collection, tmp_path, monkeypatch):
    (collection / "runs").mkdir()
    rows = [f"q{n} Q0 d{m} {rank} {9 - rank} mine" for n in range(70) for rank, m in enumerate((n, n + 3), 1)]
    (collection / "runs/mine.run").write_text("\n".join(rows) + "\n")
    (collection / "qrels/test.tsv").write_bytes(b"\xff\xfe not qrels at all")
    read = FolderCollection._read_judgements

    def watched(self, split):
        assert split != "test"
        return read(self, split)

    monkeypatch.setattr(FolderCollection, "_read_judgements", watched)
    train({**mini, "mine": {"depth": 8, "runs": ["mine"]}}, tmp_path / "work")
    assert (tmp_path / "work/students/small-seed1/modules.json").exists()


def test_no_test_query_gets_into_training_by_its_id_or_by_its_words(mini, collection, tmp_path):
    twin = {"_id": "twin", "text": TOPICS[TEST[0]][2].upper() + "?"}
    with (collection / "queries.jsonl").open("a") as file:
        file.write(json.dumps(twin) + "\n")
    with (collection / "qrels/train.tsv").open("a") as file:
        file.write("twin\td1\t1\n")
    mini["students"]["small"].update(queries=["train", "titles"], control="none")
    train(mini, tmp_path / "work")
    found = pq.read_table(tmp_path / "work/queries/train+titles/queries.parquet").to_pydict()
    texts = {text.lower().rstrip("?") for text in found["text"]}
    assert not set(found["query_id"]) & ({f"q{n}" for n in TEST} | {"twin"})
    assert not texts & {TOPICS[n][2].lower() for n in TEST}
    assert any(found["dev"])
    assert not all(found["dev"])
    for path in (tmp_path / "work").rglob("*.parquet"):
        table = pq.read_table(path)
        if "query_id" in table.column_names:
            asked = {str(name) for name in table.column("query_id").to_pylist()}
            assert not asked & {f"q{n}" for n in TEST}, path


def test_dev_queries_are_not_learnt_from(mini, tmp_path):
    from rerankdistill.pipeline.verbs import all_lessons
    from rerankdistill.pipeline.workspace import Workspace

    train(mini, tmp_path / "work")
    lessons = all_lessons(Workspace(card_of(mini), tmp_path / "work"))["small"]
    learned, held = lessons._split()
    assert {example.query_id for example in learned}.isdisjoint(example.query_id for example in held)
    assert held
    assert len(learned) + len(held) == 40


def test_a_test_query_that_was_trained_on_is_refused_and_leaves_no_report(mini, collection, tmp_path):
    train(mini, tmp_path / "work")
    path = collection / "qrels/test.tsv"
    path.write_text(path.read_text() + "q3\td3\t1\n")
    with pytest.raises(DataError, match=r"1 test queries were trained on \(e\.g\. 'q3'\)"):
        evaluate(mini, tmp_path / "work")
    assert not (tmp_path / "work/reports/test").exists()


def test_the_guard_holds_however_the_collection_is_written(mini, collection, tmp_path, monkeypatch):
    train(mini, tmp_path / "work")
    (collection / "qrels/test.tsv").write_text("query-id\tcorpus-id\tscore\nq3\td3\t1\n")
    monkeypatch.chdir(tmp_path)
    mini["evaluate"] = [{"collection": "./towns/../towns", "depth": 50}]
    with pytest.raises(DataError, match="trained on"):
        evaluate(mini, tmp_path / "work")


def test_permuted_judgements_drop_every_row_to_chance(mini, collection, tmp_path):
    """With thirty queries of one relevant document in eighty, chance is about .05 in nDCG@10."""
    _, (before,) = evaluate(mini, tmp_path / "work")
    assert figures(before)["bm25"] > 0.6
    rows = np.random.default_rng(3).permutation(np.asarray(TEST))
    lines = "".join(f"q{n}\td{m}\t1\n" for n, m in zip(TEST, np.roll(rows, 1), strict=True) if n != m)
    (collection / "qrels/test.tsv").write_text(f"query-id\tcorpus-id\tscore\n{lines}")
    heard, (after,) = evaluate(mini, tmp_path / "work")
    assert not any(name.startswith("student") for name in heard.ran)
    for name, value in figures(after).items():
        assert value < 0.25, (name, value)


def test_a_copy_with_renamed_ids_gives_the_same_numbers(mini, tmp_path):
    """Which queries are dev and the order of training hang on a hash of the ids, so the trained students are compared
    as they are, on both: ``collection`` of the target alone is renamed. Ties are broken by id, hence the tolerance."""
    _, (report,) = evaluate(mini, tmp_path / "work")
    renamed = write_collection(tmp_path / "renamed", rename="zz-")
    mini["evaluate"] = [{"collection": str(renamed), "depth": 50}]
    heard, (again,) = evaluate(mini, tmp_path / "work")
    assert not any(name.startswith("student small (") for name in heard.ran)
    one, other = figures(report), figures(again)
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert other[name] == pytest.approx(value, abs=0.03), name


def test_the_report_is_written_from_runs_that_every_judged_query_counts_in(mini, collection, tmp_path):
    shutil.copy(collection / "qrels/test.tsv", tmp_path / "kept.tsv")
    mini["students"]["small"]["control"] = "none"
    _, (report,) = evaluate(mini, tmp_path / "work")
    assert report["queries"] == len(TEST)
    assert {row["kind"] for row in report["rows"]} == {"first_stage", "student_before", "student", "fusion", "teacher"}
    assert proof.slug("msmarco-passage/trec-dl-2019/judged") == "msmarco-passage-trec-dl-2019-judged"


def test_queries_whose_documents_were_training_positives_are_told_apart(mini, collection, tmp_path):
    """Eighteen test queries get a document that a training query was judged for; the others are measured apart. What a
    dev query was judged for is not learnt, and so was not seen."""
    path = collection / "qrels/test.tsv"
    path.write_text(path.read_text() + "".join(f"q{n}\td{n - 40}\t1\n" for n in TEST[:18]))
    mini["students"]["small"]["control"] = "none"
    _, (report,) = evaluate(mini, tmp_path / "work")
    apart, whole = figures(report, "ndcg@10 unseen"), figures(report)
    assert apart.keys() == whole.keys()
    rows = (tmp_path / "work/reports/test/per_query.tsv").read_text().splitlines()
    values = [line.split("\t") for line in rows if line.startswith("bm25\t")]
    mine = {query: float(value) for _, _, measure, query, value in values if measure == "ndcg@10 unseen"}
    asked = pq.read_table(tmp_path / "work/queries/train/queries.parquet").to_pydict()
    learned = {q for q, dev in zip(asked["query_id"], asked["dev"], strict=True) if not dev}
    fresh = {f"q{n}" for n in TEST if n >= 58 or f"q{n - 40}" not in learned}
    assert set(mine) == fresh
    assert len(fresh) >= 12
    assert np.mean(list(mine.values())) == pytest.approx(apart["bm25"])
    tested = {(each["measure"], each["queries"]) for each in report["comparisons"]}
    assert tested == {("ndcg@10", 30), ("ndcg@10 unseen", len(fresh))}
    assert any(f"over the {len(fresh)} queries" in note for note in report["notes"])


def test_a_stage_on_vectors_has_no_queries_to_tell_apart(mini, teachers, tmp_path):
    match = {"match": str(teachers / "bi.toml"), "loss": "similarity_mse", "view": "text", "train": {"steps": 2}}
    mini["students"]["small"]["stages"].insert(0, match)
    mini["students"]["small"].update(control="none")
    _, (report,) = evaluate(mini, tmp_path / "work")
    assert report["rows"]


def test_where_no_document_is_shared_nothing_is_told_apart(mini, tmp_path):
    mini["students"]["small"]["control"] = "none"
    _, (report,) = evaluate(mini, tmp_path / "work")
    assert all("ndcg@10 unseen" not in row["measures"] for row in report["rows"])
