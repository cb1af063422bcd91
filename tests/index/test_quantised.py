"""Indexes that keep less of a vector than the vector: how much they find, and that it is the same every time."""

from __future__ import annotations

import numpy as np
import pytest

from rerankdistill import codebooks
from rerankdistill.codebooks import Layout
from rerankdistill.errors import CardError, DataError, MissingArtifact
from rerankdistill.index.build import IndexCard, build_index, plan_index
from rerankdistill.kinds import open_kind

KINDS = ("pq", "ivfpq", "ivf")


def clustered(rows, seed, centres=40, dimension=32):
    """Unit vectors around some centres, as texts about some topics are."""
    places = np.random.default_rng(1).normal(size=(centres, dimension))
    chance = np.random.default_rng(seed)
    found = places[chance.integers(0, centres, rows)] + 0.5 * chance.normal(size=(rows, dimension))
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


VECTORS, QUERIES = clustered(3000, 2), clustered(60, 3)
DOC_IDS = [f"d{n}" for n in range(len(VECTORS))]


def recall(found, wanted, depth=10):
    pairs = zip(found, wanted, strict=True)
    return float(np.mean([len({d for d, _ in a[:depth]} & {d for d, _ in b[:depth]}) / depth for a, b in pairs]))


@pytest.fixture
def flat(build):
    return build("flat", DOC_IDS, VECTORS).search(QUERIES, 10)


@pytest.mark.parametrize(
    ("name", "options", "least"),
    [
        ("ivf", {}, 0.97),
        ("pq", {"m": 4}, 0.25),
        ("pq", {"m": 16}, 0.75),
        ("pq", {"m": 16, "bits": 5}, 0.5),
        ("pq", {"m": 16, "bits": 5, "opq": True}, 0.5),
        ("sq8", {}, 0.95),
        ("sq8", {"train_size": 500}, 0.93),
        ("int8", {"least": 20, "factor": 2}, 0.99),
        ("binary", {"least": 20, "factor": 10}, 0.6),
        ("binary", {}, 0.97),
        ("matryoshka", {"least": 20, "factor": 10, "dimensions": 16}, 0.75),
        ("matryoshka", {}, 0.97),
        ("ivfpq", {"m": 16}, 0.8),
        ("ivfpq", {"m": 16, "bits": 5, "opq": True}, 0.5),
        ("ivfpq", {"m": 16, "nlist": 20, "nprobe": 20}, 0.8),
    ],
)
def test_few_bytes_still_find_most_of_what_flat_finds(build, flat, name, options, least):
    assert recall(build(name, DOC_IDS, VECTORS, **options).search(QUERIES, 10), flat) >= least


def test_more_bytes_find_more(build, flat):
    found = [recall(build("pq", DOC_IDS, VECTORS, m=m, bits=4).search(QUERIES, 10), flat) for m in (2, 8, 32)]
    assert found[0] < found[1] < found[2]


@pytest.mark.parametrize("name", ["binary", "matryoshka"])
def test_more_that_is_proposed_finds_more(build, flat, name):
    found = [recall(build(name, DOC_IDS, VECTORS, least=1, factor=f).search(QUERIES, 10), flat) for f in (1, 5, 300)]
    assert found[0] < found[1] < found[2] == 1.0


@pytest.mark.parametrize("name", ["int8", "binary", "matryoshka"])
def test_what_is_proposed_is_scored_by_the_whole_vectors(build, name):
    for query, hits in zip(QUERIES, build(name, DOC_IDS, VECTORS).search(QUERIES, 10), strict=True):
        wanted = [float(VECTORS[int(doc_id[1:])] @ query) for doc_id, _ in hits]
        np.testing.assert_allclose([score for _, score in hits], wanted, atol=1e-6)


def test_short_vectors_longer_than_the_whole_are_refused(build):
    with pytest.raises(CardError, match="dimensions = 64 of vectors that have 32"):
        build("matryoshka", DOC_IDS, VECTORS, dimensions=64)


def test_lists_that_are_not_opened_are_not_read(build, flat):
    few, all_of_them = (
        recall(build("ivf", DOC_IDS, VECTORS, nlist=50, nprobe=probes).search(QUERIES, 10), flat) for probes in (1, 50)
    )
    assert few < all_of_them == 1.0


@pytest.mark.parametrize("name", KINDS)
def test_equal_seeds_give_equal_files_and_another_seed_another(name, tmp_path):
    kind = open_kind("index", name)
    for at, seed in enumerate((1, 1, 2)):
        card = IndexCard(kind=name, options={"seed": seed})
        build_index(tmp_path / str(at), card, DOC_IDS, VECTORS, {"docs": "d", "encoder": "e"}, kind)
    one, again, other = ((tmp_path / str(at) / "index.faiss").read_bytes() for at in range(3))
    assert one == again != other


@pytest.mark.parametrize("opq", [False, True])
@pytest.mark.parametrize("name", ["pq", "ivfpq"])
def test_scores_are_those_of_what_the_codebooks_make_of_a_document(build, tmp_path, name, opq):
    index = build(name, DOC_IDS, VECTORS, m=8, bits=4, opq=opq)
    remembered = index[np.arange(len(VECTORS))]
    for query, hits in zip(QUERIES, index.search(QUERIES, 20), strict=True):
        wanted = [float(remembered[int(doc_id[1:])] @ query) for doc_id, _ in hits]
        np.testing.assert_allclose([score for _, score in hits], wanted, atol=1e-5)
    assert (tmp_path / name / "index.faiss").stat().st_size < VECTORS.nbytes / 4


def test_documents_of_one_code_tie_and_the_cut_among_them_is_by_doc_id(build):
    vectors = np.concatenate([VECTORS[:300], np.repeat(VECTORS[:1], 200, axis=0)])
    names = [f"n{n:03}" for n in np.random.default_rng(0).permutation(len(vectors))]
    index = build("pq", names, vectors, m=4, bits=4)
    hits = index.search(VECTORS[:1], 30)[0]
    tied = sorted(names[row] for row in [0, *range(300, 500)])
    best = [doc_id for doc_id, score in index.search(VECTORS[:1], 500)[0] if score == hits[0][1]]
    assert set(tied) <= set(best)
    assert [doc_id for doc_id, _ in hits] == best[:30] == sorted(best)[:30]


def test_codebooks_go_into_faiss_and_come_back_as_they_were(tmp_path):
    import faiss

    for layout in (Layout(8, 6), Layout(8, 6, 12), Layout(4, 4, 12, True)):
        books = codebooks.train(VECTORS, layout, 1)
        codebooks.write(books, tmp_path)
        again = codebooks.read(tmp_path)
        for name in ("codewords", "centroids", "rotation"):
            one, other = getattr(books, name), getattr(again, name)
            assert (one is None) == (other is None)
            assert one is None or np.array_equal(one, other)
        plain = faiss.read_index(str(tmp_path / codebooks.FILE))
        assert plain.is_trained
        assert plain.ntotal == 0
        plain.add(VECTORS)
        assert plain.search(QUERIES, 5)[1].min() >= 0


def test_a_tiny_collection_gets_fewer_codewords_and_a_wish_too_great_is_refused(build):
    for name in KINDS:
        assert build(name, ["only"], VECTORS[:1]).search(QUERIES[:1], 3)[0][0][0] == "only"
    with pytest.raises(DataError, match=r"(?s)256 codewords.*100 vectors.*bits = 6"):
        build("pq", DOC_IDS[:100], VECTORS[:100], bits=8)
    for name in ("ivf", "ivfpq"):
        with pytest.raises(DataError, match=r"(?s)200 centroids.*100 vectors.*nlist = 2"):
            build(name, DOC_IDS[:100], VECTORS[:100], nlist=200)
    with pytest.raises(CardError, match=r"(?s)m = 5 does not divide.*4, 8"):
        build("pq", DOC_IDS, VECTORS, m=5)


def test_learned_codebooks_are_used_and_those_for_something_else_refused(build, tmp_path):
    books = codebooks.train(VECTORS[:500], Layout(8, 4), 3)
    home = tmp_path / "learned"
    home.mkdir()
    codebooks.write(books, home)
    index = build("pq", DOC_IDS, VECTORS, codebooks=str(home))
    card, kind = IndexCard(kind="pq", options={"codebooks": str(home)}), open_kind("index", "pq")
    mark = plan_index(card, {}, kind).fingerprint
    codebooks.write(codebooks.train(VECTORS[:500], Layout(8, 4), 4), home)
    assert plan_index(card, {}, kind).fingerprint != mark, "its student was trained again"
    assert np.array_equal(codebooks.codebooks_of(index._index).codewords, books.codewords)
    with pytest.raises(CardError, match=r"(?s)another kind.*kind = 'pq'"):
        build("ivfpq", DOC_IDS, VECTORS, codebooks=str(home))
    with pytest.raises(CardError, match="32 dimensions, and vectors of 16"):
        build("pq", DOC_IDS, VECTORS[:, :16], codebooks=str(home))
    with pytest.raises(MissingArtifact, match="no learned codebooks"):
        build("pq", DOC_IDS, VECTORS, codebooks=str(tmp_path))
