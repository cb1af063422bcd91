"""Approximate search over vectors by inner product: a navigable small-world graph (faiss ``IndexHNSWFlat``).

Malkov and Yashunin, "Efficient and robust approximate nearest neighbor search using Hierarchical Navigable Small World
graphs", 2016. A document may be missed, and so may one that ties at the cut; what is found is scored exactly and
ordered by (-score, doc_id). faiss has this graph on the CPU alone; ``device`` is checked and has no other effect.

The graph depends on the order in which threads add to it: two builds with ``threads = 0`` may differ by a few
neighbours; ``threads = 1`` gives the same graph every time. Vectors of very different lengths suit this graph badly:
give it a normalised student, or choose ``flat``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from rerankdistill import devices
from rerankdistill.cards import Card
from rerankdistill.index import vectors
from rerankdistill.index.ids import DocIds, check_ids, open_ids, save_ids
from rerankdistill.types import FloatArray, IntArray


class HnswOptions(Card):
    """The graph.

    Attributes:
        m: neighbours a document has in the graph (twice that in its lowest layer): memory and recall.
        ef_construction: documents considered while one is added: build time and recall.
        ef_search: documents considered for a query, at least the depth: search time and recall.
        threads: of the build; 0 takes every core, 1 makes the same graph every time.
    """

    m: int = Field(default=32, ge=2, le=512)
    ef_construction: int = Field(default=200, ge=1)
    ef_search: int = Field(default=128, ge=1)
    threads: int = Field(default=0, ge=0)


Options = HnswOptions


class Kind:
    """Keeps the promises of :class:`rerankdistill.contracts.Index`."""

    accepts: Literal["texts", "vectors"] = "vectors"
    Options = HnswOptions

    def __init__(self, index: Any, ids: DocIds) -> None:
        self.ids, self._index = ids, index
        self._flat = vectors.load_faiss().downcast_index(index.storage)
        self._vectors = vectors.stored(self._flat)

    @classmethod
    def build(
        cls, folder: Path, doc_ids: Sequence[str], content: FloatArray, options: HnswOptions, device: str = "auto"
    ) -> None:
        """``content``: ``[n, d]``, also memory-mapped."""
        vectors.gpu_number(device)
        check_ids(doc_ids)
        vectors.check_vectors(content, doc_ids)
        faiss = vectors.load_faiss()
        index = faiss.IndexHNSWFlat(int(content.shape[1]), options.m, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = options.ef_construction
        index.hnsw.efSearch = options.ef_search
        before = faiss.omp_get_max_threads()
        faiss.omp_set_num_threads(options.threads or devices.cores())
        try:
            vectors.add_all(index, content)
        finally:
            faiss.omp_set_num_threads(before)
        vectors.write_index(index, folder)
        save_ids(folder, doc_ids)

    @classmethod
    def open(cls, folder: Path, device: str = "auto") -> Kind:
        vectors.gpu_number(device)
        ids = open_ids(folder)
        return cls(vectors.read_index(folder, ids), ids)

    def search(self, queries: FloatArray, depth: int) -> list[list[tuple[str, float]]]:
        """``[q, d]`` vectors to at most ``depth`` (doc_id, inner product) a query."""
        matrix = vectors.check_queries(queries, self._index.d)
        return vectors.search(self._propose, self._vectors, self.ids, matrix, depth, widen=False)

    def _propose(self, queries: FloatArray, fetch: int) -> tuple[FloatArray, IntArray]:
        effort = vectors.load_faiss().SearchParametersHNSW(efSearch=max(self._index.hnsw.efSearch, fetch))
        found: tuple[FloatArray, IntArray] = self._index.search(queries, fetch, params=effort)
        return found
