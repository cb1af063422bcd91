"""BM25: the statistics, the bm25 index, and the two back-ends against each other."""

from __future__ import annotations

import itertools
import math
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from rerankdistill import representations
from rerankdistill.errors import DataError, MissingDependency, StaleArtifact
from rerankdistill.index import java
from rerankdistill.lexical import Bm25Options, Lexical

words = st.sampled_from(["dog", "dogs", "running", "run", "the", "cat", "zebra", "w1", "日本", ""])
texts = st.lists(words, max_size=8).map(" ".join)


def test_scores_are_those_worked_out_by_hand():
    options = Bm25Options(k1=0.9, b=0.4, language="", stopwords="")
    lexical = Lexical.build(["apple apple pear", "pear", "plum plum"], options)
    idf = math.log(1 + (3 - 1 + 0.5) / (1 + 0.5))
    expected = idf * 2 / (2 + 0.9 * (1 - 0.4 + 0.4 * 3 / 2))
    numbers, scores = lexical.search(["apple", "nothing known", ""], 3)
    assert numbers.tolist() == [[0, -1, -1], [-1] * 3, [-1] * 3]
    assert scores[0, 0] == pytest.approx(expected, rel=1e-6)
    assert scores[1:].sum() == 0


@settings(deadline=None, max_examples=60)
@given(st.lists(texts, min_size=1, max_size=30), st.lists(texts, max_size=4), st.integers(1, 35))
def test_search_matrix_and_bm25s_agree_to_the_last_bit(docs, queries, depth):
    if not any(token for doc in docs for token in doc.replace("the", "").split()):
        with pytest.raises(DataError, match="no document has a word"):
            Lexical.build(docs, Bm25Options())
        return
    lexical = Lexical.build(docs, Bm25Options())
    every = lexical.matrix(queries, range(len(docs)))
    shuffled = np.random.default_rng(0).permutation(len(docs))
    assert (lexical.matrix(queries, shuffled) == every[:, shuffled]).all()
    numbers, scores = lexical.search(queries, depth)
    assert numbers.shape == scores.shape == (len(queries), min(depth, len(docs)))
    for row, terms in enumerate(lexical.tokens(queries)):
        known = [term for term in terms if term in lexical._retriever.vocab_dict]
        if known:
            assert (lexical._retriever.get_scores(known) == every[row]).all()
        best = sorted((d for d in range(len(docs)) if every[row, d] > 0), key=lambda d: (-every[row, d], d))[:depth]
        assert [d for d in numbers[row].tolist() if d >= 0] == best
        assert scores[row, : len(best)].tolist() == every[row, best].tolist()


@settings(deadline=None, max_examples=40)
@given(st.lists(texts, min_size=1, max_size=12), st.lists(texts, max_size=6), st.sets(st.integers(0, 11)))
def test_what_is_renewed_is_to_the_last_bit_what_is_built_of_all_texts(tmp_path_factory, docs, more, gone):
    folder, options = tmp_path_factory.mktemp("bm25"), Bm25Options()
    docs = [*docs, "zebra"]
    Lexical.build(docs, options).save(folder)
    stay = [row for row in range(len(docs)) if row not in gone]
    now = [*(docs[row] for row in stay), *more]
    if not any(Lexical.open(folder).tokens(now)):
        with pytest.raises(DataError, match="no document has a word"):
            Lexical.renew(folder, np.asarray(stay, np.int64), more)
        return
    renewed, built = Lexical.renew(folder, np.asarray(stay, np.int64), more), Lexical.build(now, options)
    assert renewed.fingerprint == built.fingerprint
    assert (
        renewed.matrix(["dog zebra run"], range(len(now))) == built.matrix(["dog zebra run"], range(len(now)))
    ).all()


def test_an_index_of_before_counts_were_kept_says_what_to_do(world, tmp_path):
    Lexical.build(world.texts, Bm25Options()).save(tmp_path)
    (tmp_path / representations.SPARSE).unlink()
    assert Lexical.open(tmp_path).count == len(world.texts)
    with pytest.raises(StaleArtifact, match=r"(?s)earlier version.*build it again"):
        Lexical.renew(tmp_path, np.arange(3), ["new"])


def test_posting_lists_are_ascending(world):
    matrix = Lexical.build(world.texts, Bm25Options())._retriever.scores
    starts = matrix["indptr"]
    for start, end in itertools.pairwise(starts):
        assert (np.diff(matrix["indices"][start:end]) > 0).all()


def test_saved_and_opened_again_it_is_the_same_and_memory_mapped(world, tmp_path):
    lexical = Lexical.build(world.texts, Bm25Options())
    lexical.save(tmp_path)
    opened = Lexical.open(tmp_path)
    assert isinstance(opened._retriever.scores["data"], np.memmap)
    assert (opened.fingerprint, opened.count, opened.options) == (lexical.fingerprint, 400, Bm25Options())
    assert (opened.matrix(["w1 w2"], range(400)) == lexical.matrix(["w1 w2"], range(400))).all()
    assert opened.search(["w1 w2"], 50)[0].tolist() == lexical.search(["w1 w2"], 50)[0].tolist()


def test_the_fingerprint_does_not_depend_on_the_hash_seed_of_the_process():
    code = (
        "from rerankdistill.lexical import *;"
        "print(Lexical.build(['running dogs fast', 'cats ran with dogs', 'zebra'], Bm25Options()).fingerprint)"
    )
    marks = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(marks) == 1
    assert marks != {"\n"}


def test_the_fingerprint_sees_a_changed_document_and_a_moved_one():
    docs = ["red fox", "blue dog", "fast cat"]
    marks = {
        Lexical.build(d, Bm25Options()).fingerprint for d in (docs, docs[::-1], [*docs[:2], "fast cow"], [*docs, ""])
    }
    assert len(marks | {Lexical.build(docs, Bm25Options(k1=1.2)).fingerprint}) == 5


@pytest.mark.parametrize("bad", [{"language": "klingon"}, {"stopwords": "xx"}, {"b": 1.5}, {"k1": -1}])
def test_options_that_mean_nothing_are_refused(bad):
    with pytest.raises(ValidationError):
        Bm25Options(**bad)


def test_bm25_index_ranks_by_the_matrix_and_returns_no_unmatched_document(world, build):
    index = build("bm25", world.doc_ids, world.texts)
    queries = ["w1 w2 w3", "w5 w5 w39", "", "qqq", "w1 " * 50]
    every = index.lexical.matrix(queries, range(400))
    for row, hits in enumerate(index.search(queries, 400)):
        pairs = [(world.doc_ids[d], float(every[row, d])) for d in range(400) if every[row, d] > 0]
        assert hits == sorted(pairs, key=lambda hit: (-hit[1], hit[0]))


@pytest.mark.realdata
def test_bm25_reads_what_it_is_known_to_read_on_scifact(scifact, build):
    index = build("bm25", scifact.doc_ids, scifact.texts)
    hits = dict(zip(scifact.query_ids, index.search(scifact.queries, 10), strict=True))
    assert scifact.ndcg10(hits) == pytest.approx(0.676, abs=0.002)


def agreement(left, right):
    pairs = zip(left, right, strict=True)
    return float(np.mean([len({d for d, _ in a} & {d for d, _ in b}) / max(1, len(a)) for a, b in pairs]))


@pytest.mark.java
@pytest.mark.realdata
def test_lucene_and_bm25s_give_the_same_hundred_documents(scifact, build):
    bm25 = build("bm25", scifact.doc_ids, scifact.texts)
    expected = bm25.search(scifact.queries, 100)
    joined = [" ".join(tokens) for tokens in bm25.lexical.tokens(scifact.texts)]
    asked = [" ".join(tokens) for tokens in bm25.lexical.tokens(scifact.queries)]
    same_tokens = build("lucene", scifact.doc_ids, joined, pretokenized=True).search(asked, 100)
    assert agreement(expected, same_tokens) >= 0.98
    own = build("lucene", scifact.doc_ids, scifact.texts).search(scifact.queries, 100)
    assert agreement(expected, own) >= 0.90
    assert scifact.ndcg10(dict(zip(scifact.query_ids, own, strict=True))) >= 0.67


@pytest.mark.java
def test_lucene_analyses_queries_as_it_analysed_documents(build):
    docs = ["the dogs were running in cities", "a dog in a city", "The runner 😀"]
    for options, query, found in (
        ({}, "dogs", {"0", "1"}),
        ({}, "the", set()),
        ({"stopwords": False}, "the", {"0", "2"}),
        ({"stemmer": "none"}, "dogs", {"0"}),
        ({"stemmer": "krovetz"}, "cities", {"0", "1"}),
        ({"pretokenized": True}, "The", {"2"}),
        ({"pretokenized": True}, "😀 the", {"0", "2"}),
        ({}, 'a AND (b OR "', set()),
    ):
        hits = build("lucene", ["0", "1", "2"], docs, **options).search([query], 5)[0]
        assert {doc_id for doc_id, _ in hits} == found, options


@pytest.mark.java
def test_lucene_answers_a_query_of_thousands_of_words_and_keeps_quiet(build, capfd):
    index = build("lucene", ["0", "1"], ["needle in hay", "hay"])
    assert index.search(["needle " + " ".join(f"w{n}" for n in range(3000))], 5)[0][0][0] == "0"
    assert capfd.readouterr().out == ""


@pytest.mark.java
def test_lucene_refuses_a_collection_without_a_word(build, tmp_path):
    with pytest.raises(DataError, match="no document has a word"):
        build("lucene", ["0", "1"], ["", "  "])
    assert list(tmp_path.iterdir()) == []


def test_without_java_the_error_says_what_to_install(monkeypatch):
    java.start.cache_clear()
    try:
        monkeypatch.setitem(sys.modules, "jnius_config", None)
        with pytest.raises(MissingDependency, match=r"rerankdistill\[lucene\]"):
            java.start()
    finally:
        java.start.cache_clear()
