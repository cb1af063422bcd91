"""A small BEIR folder that a test may damage."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

DOCS = [
    {"_id": "d1", "title": "Fox", "text": "The quick fox jumps."},
    {"_id": "d2", "title": "", "text": "A lazy dog sleeps — déjà vu."},
    {"_id": "d3", "title": "Hen", "text": "Hens lay eggs."},
]
QUERIES = [
    {"_id": "q1", "text": "what does the fox do"},
    {"_id": "q2", "text": "who sleeps"},
    {"_id": "q3", "text": "who lays eggs"},
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three documents, three queries; q1 and q2 are judged in ``test``, q3 in ``train``."""
    home = tmp_path / "animals"
    (home / "qrels").mkdir(parents=True)
    (home / "corpus.jsonl").write_text("".join(json.dumps(doc) + "\n" for doc in DOCS), "utf-8")
    (home / "queries.jsonl").write_text("".join(json.dumps(query) + "\n" for query in QUERIES), "utf-8")
    (home / "qrels/test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t1\nq2\td2\t2\n", "utf-8")
    (home / "qrels/train.tsv").write_text("query-id\tcorpus-id\tscore\nq3\td3\t1\n", "utf-8")
    return home
