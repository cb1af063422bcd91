"""The fused first stage on real judgements: the figure that an offline teacher is built on."""

from __future__ import annotations

import pytest

from rerankdistill.encoding import open_encoder
from rerankdistill.runs.fuse import zscore_sum
from rerankdistill.runs.rerank import by_vectors
from rerankdistill.runs.search import search
from rerankdistill.types import Query


@pytest.mark.slow
@pytest.mark.timeout(1800)  # encodes all of SciFact: ten minutes of a slow core
@pytest.mark.model
@pytest.mark.realdata
def test_bm25_fused_with_minilm_is_far_above_either_on_scifact(scifact, minilm, build):
    encoder, rows = open_encoder(minilm), {doc_id: row for row, doc_id in enumerate(scifact.doc_ids)}
    docs, asked = encoder.encode(scifact.texts, "doc"), encoder.encode(scifact.queries, "query")
    queries = [Query(*pair) for pair in zip(scifact.query_ids, scifact.queries, strict=True)]
    words, vectors = build("bm25", scifact.doc_ids, scifact.texts), build("flat", scifact.doc_ids, docs)
    runs = [search("bm25", words, queries, scifact.queries, 100), search("flat", vectors, queries, asked, 100)]
    texts = dict(queries)

    def by_words(groups):
        return [words.lexical.matrix([texts[q]], [rows[d] for d in doc_ids])[0] for q, doc_ids in groups]

    complete = [by_words, by_vectors(scifact.query_ids, asked, scifact.doc_ids, docs)]
    assert scifact.ndcg10(runs[1].hits()) == pytest.approx(0.646, abs=0.005)
    assert scifact.ndcg10(zscore_sum(runs, 50).hits()) == pytest.approx(0.729, abs=0.005)
    assert scifact.ndcg10(zscore_sum(runs, 50, complete=complete).hits()) == pytest.approx(0.738, abs=0.005)
