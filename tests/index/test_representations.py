"""Sparse rows and token vectors: an index of either says what the product says that it stands for."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csr_array

from rerankdistill.errors import DamagedArtifact, DataError
from rerankdistill.representations import (
    BLOCK,
    OFFSETS,
    TokenVectors,
    blocks,
    dot,
    exact_maxsim,
    joined,
    load,
    maxsim,
    save,
    top_terms,
)

CHANCE = np.random.default_rng(5)


def ragged(lengths, dimension=8):
    parts = [CHANCE.normal(size=(length, dimension)) for length in lengths]
    return TokenVectors.of([part / np.linalg.norm(part, axis=1, keepdims=True) for part in parts], dimension)


def by_hand(query, doc):
    """The sum of each query token's best match."""
    return sum(max(float(a @ b) for b in doc) for a in query)


def parts_of(tokens):
    return [tokens[row : row + 1].vectors for row in range(len(tokens))]


@pytest.fixture
def late():
    return ragged([3, 1, 5]), ragged([4, 1, 7, 2, 30, 1])


@pytest.fixture
def sparse():
    dense = np.maximum(CHANCE.normal(size=(60, 40)) - 1, 0).astype(np.float32)
    dense[7] = 0
    return dense[:5], dense


@pytest.mark.parametrize("block", [1, 5, 12, BLOCK])
def test_maxsim_is_the_sum_of_best_matches_however_it_is_cut_into_blocks(late, monkeypatch, block):
    queries, docs = late
    wanted = [[by_hand(query, doc) for doc in parts_of(docs)] for query in parts_of(queries)]
    monkeypatch.setattr("rerankdistill.representations.BLOCK", block)
    np.testing.assert_allclose(maxsim(queries, docs), wanted, rtol=1e-5)
    np.testing.assert_allclose([exact_maxsim(query, docs) for query in parts_of(queries)], wanted, rtol=1e-5)
    assert [row for first, end in blocks(docs.offsets) for row in range(first, end)] == list(range(len(docs)))


def test_texts_without_a_token_shift_nobody_elses_score(late):
    queries, docs = late
    parts = parts_of(docs)
    empty = np.empty((0, 8), np.float32)
    with_gaps = TokenVectors.of([empty, parts[0], empty, *parts[1:], empty], 8)
    found = maxsim(queries, with_gaps)
    np.testing.assert_allclose(found[:, [1, 3, 4, 5, 6, 7]], maxsim(queries, docs), rtol=1e-6)
    np.testing.assert_array_equal(found[:, 0], [-3, -1, -5])
    asked = TokenVectors.of([empty, *parts_of(queries)], 8)
    np.testing.assert_allclose(maxsim(asked, docs)[1:], maxsim(queries, docs), rtol=1e-6)


def test_rows_are_read_as_of_a_matrix(late):
    _, docs = late
    for rows in (slice(1, 4), slice(4, 2), slice(0, 6, 2), [5, 0, 0], np.array([], np.int64), np.array([2, 3])):
        wanted = [parts_of(docs)[row] for row in np.arange(6)[rows]]
        found = docs[rows]
        assert len(found) == len(wanted)
        for one, other in zip(parts_of(found), wanted, strict=True):
            np.testing.assert_array_equal(one, other)


def test_an_index_of_sparse_rows_gives_the_dense_product(sparse, build):
    queries, docs = sparse
    ids = [f"d{n}" for n in range(60)]
    index = build("sparse", ids, csr_array(docs))
    exact = queries.astype(np.float64) @ docs.astype(np.float64).T
    for row, hits in enumerate(index.search(csr_array(queries), 60)):
        assert {name for name, _ in hits} == {ids[n] for n in np.flatnonzero(exact[row])}
        for name, score in hits:
            assert score == pytest.approx(exact[row, int(name[1:])], rel=1e-6)
        np.testing.assert_allclose(index.score(csr_array(queries[[row]]), ["d9", "d7", "d0"]), exact[row, [9, 7, 0]])
    np.testing.assert_allclose(dot(csr_array(queries), csr_array(docs)), exact, rtol=1e-6)


def test_the_heaviest_terms_are_kept_and_no_others(sparse, build):
    _, docs = sparse
    found = top_terms(csr_array(docs), 3).toarray()
    assert ((found > 0).sum(1) == np.minimum((docs > 0).sum(1), 3)).all()
    for row, kept in zip(docs, found, strict=True):
        assert sorted(kept[kept > 0]) == sorted(np.sort(row)[-3:][np.sort(row)[-3:] > 0])
    index = build("sparse", [f"d{n}" for n in range(60)], csr_array(docs), doc_terms=3)
    assert index._postings.nnz == np.count_nonzero(found)


@pytest.mark.parametrize(("dtype", "error"), [("float16", 2e-3), ("int8", 2e-2)])
def test_an_index_of_tokens_gives_maxsim_of_what_it_keeps(late, build, dtype, error):
    queries, docs = late
    index = build("maxsim", list("abcdef"), docs, dtype=dtype)
    wanted = maxsim(queries, docs)
    for row, hits in enumerate(index.search(queries, 6)):
        again = index.score(queries[row : row + 1], [name for name, _ in hits])
        assert [score for _, score in hits] == pytest.approx(again.tolist(), abs=0)
        for name, score in hits:
            assert score == pytest.approx(wanted[row, "abcdef".index(name)], abs=error * len(queries[[row]].vectors))


def test_a_foreign_student_is_refused(late, sparse, build):
    queries, docs = late
    tokens = build("maxsim", list("abcdef"), docs)
    rows = build("sparse", [f"d{n}" for n in range(60)], csr_array(sparse[1]))
    for index, wrong in ((tokens, ragged([2], 4)), (tokens, sparse[0]), (rows, csr_array((1, 7))), (rows, queries)):
        with pytest.raises(DataError, match="the student that filled the index"):
            index.search(wrong, 3)


def test_nan_is_refused_before_it_is_indexed(late, sparse, build):
    tokens, rows = late[1], csr_array(sparse[1])
    tokens.vectors[3, 2] = rows.data[4] = np.nan
    for kind, content in (("maxsim", tokens), ("sparse", rows)):
        with pytest.raises(DataError, match="NaN"):
            build(kind, [f"d{n}" for n in range(content.shape[0])], content)


def test_shards_joined_are_the_whole_and_come_back_from_disk(late, sparse, tmp_path):
    tokens, rows = late[1], csr_array(sparse[1])
    again = joined([tokens[:2], tokens[2:]])
    np.testing.assert_array_equal(again.vectors, tokens.vectors)
    np.testing.assert_array_equal(again.offsets, tokens.offsets)
    np.testing.assert_array_equal(joined([rows[:9], rows[9:]]).toarray(), rows.toarray())
    for name, content in (("tokens", tokens), ("rows", rows)):
        (tmp_path / name).mkdir()
        save(tmp_path / name, content)
    np.testing.assert_array_equal(load(tmp_path / "rows").toarray(), rows.toarray())
    np.testing.assert_allclose(load(tmp_path / "tokens").vectors, tokens.vectors, atol=1e-3)
    np.save(tmp_path / "tokens" / OFFSETS, np.array([0, 5, 3, 45]))
    with pytest.raises(DamagedArtifact, match="do not fit"):
        load(tmp_path / "tokens")
