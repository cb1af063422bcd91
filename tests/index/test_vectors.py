"""The vector kinds against a plain matrix product, and against each other."""

from __future__ import annotations

import numpy as np
import pytest

from rerankdistill.encoding import open_encoder
from rerankdistill.errors import DataError, MissingDependency, UsageError
from rerankdistill.index.build import IndexCard, build_index, open_index
from rerankdistill.index.vectors import gpu_number
from rerankdistill.kinds import open_kind


def brute(doc_ids, vectors, query, depth):
    scores = (vectors.astype(np.float64) * query.astype(np.float64)).sum(axis=1).astype(np.float32)
    order = sorted(range(len(doc_ids)), key=lambda row: (-scores[row], doc_ids[row]))[:depth]
    return [(doc_ids[row], float(scores[row])) for row in order]


def unit(rows, dimension, seed):
    vectors = np.random.default_rng(seed).normal(size=(rows, dimension)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def overlap(left, right):
    pairs = zip(left, right, strict=True)
    return float(np.mean([len({d for d, _ in a} & {d for d, _ in b}) / len(a) for a, b in pairs]))


def test_flat_is_exactly_the_matrix_product(world, build):
    index = build("flat", world.doc_ids, world.vectors)
    queries = unit(20, 16, 5)
    expected = [brute(world.doc_ids, world.vectors, query, 50) for query in queries]
    assert index.search(queries, 50) == expected


@pytest.mark.parametrize("copies", [40, 300])
def test_flat_cuts_a_long_tie_by_doc_id(build, copies):
    vectors = np.concatenate([unit(50, 8, 1), np.repeat(unit(1, 8, 2), copies, axis=0)])
    doc_ids = [f"d{n:03}" for n in np.random.default_rng(0).permutation(len(vectors))]
    index = build("flat", doc_ids, vectors)
    for depth in (1, 5, 30):
        assert index.search(vectors[-1:], depth)[0] == brute(doc_ids, vectors, vectors[-1], depth)


def test_inner_product_is_used_and_not_cosine(build):
    index = build("flat", ["short", "long"], np.array([[1.0, 0.0], [3.0, 3.0]], np.float32))
    assert index.search(np.array([[1.0, 0.0]], np.float32), 2) == [[("long", 3.0), ("short", 1.0)]]


def test_hnsw_finds_nearly_what_flat_finds_with_the_same_scores(build):
    vectors, queries = unit(3000, 32, 1), unit(50, 32, 2)
    doc_ids = [f"d{n}" for n in range(3000)]
    flat = build("flat", doc_ids, vectors).search(queries, 10)
    hnsw = build("hnsw", doc_ids, vectors).search(queries, 10)
    assert overlap(flat, hnsw) >= 0.95
    exact = [dict(hits) for hits in flat]
    assert all(exact[row].get(doc, score) == score for row, hits in enumerate(hnsw) for doc, score in hits)


def test_hnsw_searches_at_least_as_wide_as_it_is_deep(build):
    vectors = unit(1500, 16, 1)
    index = build("hnsw", [str(n) for n in range(1500)], vectors, ef_search=1)
    assert all(len(hits) == 500 for hits in index.search(vectors[:5], 500))


def test_hnsw_on_one_thread_builds_the_same_graph_every_time(tmp_path):
    vectors, kind = unit(500, 16, 1), open_kind("index", "hnsw")
    card = IndexCard(kind="hnsw", options={"threads": 1, "m": 8})
    for name in ("a", "b"):
        ids = [str(n) for n in range(500)]
        build_index(tmp_path / name, card, ids, vectors, {"docs": "d", "encoder": "e"}, kind)
    assert (tmp_path / "a/index.faiss").read_bytes() == (tmp_path / "b/index.faiss").read_bytes()


def test_a_memory_mapped_matrix_of_half_precision_fills_an_index(tmp_path, build):
    vectors = unit(100, 8, 1).astype(np.float16)
    np.save(tmp_path / "v.npy", vectors)
    ids = [str(n) for n in range(100)]
    index = build("flat", ids, np.load(tmp_path / "v.npy", mmap_mode="r"))
    assert index.search(vectors[:3].astype(np.float32), 1) == [
        brute(ids, vectors.astype(np.float32), vectors[row].astype(np.float32), 1) for row in range(3)
    ]


def test_queries_of_another_dimension_or_with_nan_are_refused(world, build):
    for name in ("flat", "hnsw"):
        index = build(name, world.doc_ids, world.vectors)
        with pytest.raises(DataError, match="16 dimensions"):
            index.search(np.zeros((1, 8), np.float32), 3)
        with pytest.raises(DataError, match="query number 2"):
            index.search(np.array([[0.0] * 16, [np.nan] * 16], np.float32), 3)


def test_devices_are_checked_and_a_missing_gpu_names_the_remedy():
    import faiss

    assert gpu_number("cpu") is None
    with pytest.raises(UsageError, match="tpu"):
        gpu_number("tpu")
    if not hasattr(faiss, "StandardGpuResources") or not faiss.get_num_gpus():
        assert gpu_number("auto") is None
        with pytest.raises(MissingDependency, match=r"rerankdistill\[gpu\]"):
            gpu_number("cuda")


def test_a_graph_of_the_gpu_says_what_is_missing_without_one(build, world):
    import faiss

    if hasattr(faiss, "GpuIndexCagra"):
        pytest.skip("this faiss has cuVS")
    with pytest.raises(MissingDependency, match=r"(?s)faiss with cuVS.*faiss-gpu-cuvs.*kind = 'hnsw'"):
        build("cagra", world.doc_ids, world.vectors)


@pytest.mark.gpu
def test_flat_gives_the_same_answer_on_a_gpu(tmp_path, world):
    import faiss

    if not hasattr(faiss, "StandardGpuResources") or not faiss.get_num_gpus():
        pytest.skip("this faiss sees no GPU")
    kind, queries = open_kind("index", "flat"), unit(20, 16, 5)
    build_index(
        tmp_path / "x",
        IndexCard(kind="flat"),
        world.doc_ids,
        world.vectors,
        {"docs": "d", "encoder": "e"},
        kind,
        "cuda",
    )
    on_cpu, on_gpu = (open_index(tmp_path / "x", kind, device).search(queries, 50) for device in ("cpu", "cuda"))
    assert on_cpu == on_gpu == [brute(world.doc_ids, world.vectors, query, 50) for query in queries]


@pytest.mark.model
@pytest.mark.realdata
def test_hnsw_agrees_with_flat_on_real_embeddings(scifact, minilm, build):
    encoder = open_encoder(minilm, max_tokens={"doc": 32, "query": 32})
    doc_ids, queries = scifact.doc_ids[:1000], encoder.encode(scifact.queries[:50], "query")
    vectors = encoder.encode(scifact.texts[:1000], "doc")
    flat = build("flat", doc_ids, vectors).search(queries, 50)
    assert overlap(flat, build("hnsw", doc_ids, vectors).search(queries, 50)) >= 0.99
    assert flat == [brute(doc_ids, vectors, query, 50) for query in queries]
