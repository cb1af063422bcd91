"""Rows for the other ways in which a student can be used must be about that student, used in that way."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest
from helpers_pipeline import evaluate, figures

WAYS = {"dims": [32, 4], "quantise": ["int8", "binary"], "exits": [1]}
NAMES = {"small @4": 16, "small int8": 32, "small binary": 4, "small exit 1": 128}
"""Bytes of a vector of each."""


@pytest.fixture
def several(mini):
    small = mini["students"]["small"]
    small["options"] = {**small["options"], **WAYS}
    mini["check"] = False
    mini["evaluate"] = [{"depth": 50}, {"depth": 50, "mode": "rerank"}]
    return mini


def test_a_report_says_what_each_way_of_using_a_student_costs(several, tmp_path):
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.util import quantize_embeddings

    heard, (report, again) = evaluate(several, tmp_path / "work")
    rows = {row["name"]: row for row in report["rows"]}
    assert {name: rows[name]["vector_bytes"] for name in NAMES} == NAMES
    assert rows["small"]["vector_bytes"] == 128
    assert rows["small exit 1"]["parameters"] < rows["small"]["parameters"]
    assert rows["small @4"]["latency_ms"]
    assert rows["small binary"]["latency_ms"] is None, "floats were searched, no bits"
    assert NAMES.keys() <= figures(again).keys()
    assert not [found for found in report["comparisons"] if found["baseline"] in NAMES], "more tests weaken all"
    encoding = [name for name in heard.ran if name.startswith("vectors small-seed1")]
    assert len(encoding) == 5

    home = tmp_path / "work/vectors"
    ids, whole = pq.read_table(home / "small-seed1-docs/ids.parquet"), np.load(home / "small-seed1-docs/vectors.npy")
    folder = tmp_path / "work/students/small-seed1"
    plain = SentenceTransformer(str(folder), device="cpu", truncate_dim=4)
    early = SentenceTransformer(str(folder / "exits/1"), device="cpu")
    assert pq.read_table(home / "small-seed1.d4-docs/ids.parquet")["id"] == ids["id"]
    texts = [doc.view(doc_view()) for doc in source(several).docs()]
    wanted = {
        "d4": plain.encode_document(texts, normalize_embeddings=True),
        "exit1": early.encode_document(texts, normalize_embeddings=True),
        "binary": np.unpackbits(quantize_embeddings(whole, "ubinary"), axis=1) * 2.0 - 1,
    }
    for name, vectors in wanted.items():
        found = np.load(home / f"small-seed1.{name}-docs/vectors.npy")
        np.testing.assert_allclose(found * np.abs(vectors[0, 0] / found[0, 0]), vectors, atol=2e-2)
    eight = np.load(home / "small-seed1.int8-docs/vectors.npy")
    assert 0 < np.abs(eight - whole).max() <= np.ptp(whole, axis=0).max() / 255


def test_a_query_tower_is_narrowed_on_both_sides(several, tmp_path):
    small = several["students"]["small"]
    small["kind"], small["options"]["init"] = "query_tower", small["options"]["init"].replace("student", "teacher")
    several["evaluate"] = several["evaluate"][:1]
    _, (report,) = evaluate(several, tmp_path / "work")
    assert NAMES.keys() <= figures(report).keys()


def source(table):
    from rerankdistill.collections.load import load_collection

    return load_collection(table["collection"])


def doc_view():
    from rerankdistill.types import View

    return View.TITLE_TEXT
