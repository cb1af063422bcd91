"""Approximate search over vectors by inner product: a navigable small-world graph (faiss ``IndexHNSWFlat``).

Malkov and Yashunin, "Efficient and robust approximate nearest neighbor search using Hierarchical Navigable Small World
graphs", 2016. A document may be missed, and so may one that ties at the cut; what is found is scored exactly and
ordered by (-score, doc_id). faiss has this graph on the CPU alone; ``device`` is checked and has no other effect.

The graph depends on the order in which threads add to it: two builds with ``threads = 0`` may differ by a few
neighbours; ``threads = 1`` gives the same graph every time. Vectors of very different lengths suit this graph badly:
give it a normalised student, or choose ``flat``.

A document that is deleted or replaced stays in the graph as a step on the way, and is left out of what is found. Once
half of the graph is such steps, an update builds it again from the vectors that are left.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from rerankdistill import devices
from rerankdistill.cards import Card
from rerankdistill.index import vectors
from rerankdistill.index.ids import DocIds, open_ids, save_ids
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
WORTH = 0.5
"""The share of a graph that must be living documents for it to be kept."""


class Kind:
    """Keeps the promises of :class:`rerankdistill.contracts.Index`."""

    accepts: Literal["texts", "vectors"] = "vectors"
    Options = HnswOptions

    def __init__(self, index: Any, ids: DocIds) -> None:
        self.ids, self._index = ids, index
        self._flat = vectors.load_faiss().downcast_index(index.storage)
        self._vectors = vectors.stored(self._flat)
        self._living = vectors.living(ids)

    @classmethod
    def build(
        cls, folder: Path, doc_ids: Sequence[str], content: FloatArray, options: HnswOptions, device: str = "auto"
    ) -> None:
        """``content``: ``[n, d]``, also memory-mapped."""
        vectors.check(doc_ids, content, device)
        _write(folder, _graph(int(content.shape[1]), options), doc_ids, content, options.threads)

    @classmethod
    def update(
        cls,
        folder: Path,
        source: Path,
        gone: Collection[str],
        doc_ids: Sequence[str],
        content: FloatArray,
        device: str = "auto",
    ) -> None:
        """See :func:`rerankdistill.index.update.update_index`."""
        found = cls.open(source, device)
        index, names = found._index, found.ids.names
        vectors.check_fit(content, doc_ids, index.d)
        stay = found.ids.others(gone)
        if len(stay) < WORTH * len(names):
            again = _graph(index.d, _options(index))
            _add(again, vectors.Part(found._vectors, stay), 0)
            _write(folder, again, [*(names[row] for row in stay), *doc_ids], content, 0)
            return
        dead = np.setdiff1d(np.arange(len(names)), stay)
        _write(folder, index, [*names, *doc_ids], content, 0, dead)

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
        effort = vectors.load_faiss().SearchParametersHNSW(
            efSearch=max(self._index.hnsw.efSearch, fetch), sel=self._living
        )
        found: tuple[FloatArray, IntArray] = self._index.search(queries, fetch, params=effort)
        return found


def _graph(dimension: int, options: HnswOptions) -> Any:
    """An empty index."""
    faiss = vectors.load_faiss()
    index = faiss.IndexHNSWFlat(dimension, options.m, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = options.ef_construction
    index.hnsw.efSearch = options.ef_search
    return index


def _options(index: Any) -> HnswOptions:
    """What an index was built with."""
    graph = index.hnsw
    return HnswOptions(m=graph.nb_neighbors(1), ef_construction=graph.efConstruction, ef_search=graph.efSearch)


def _add(index: Any, content: Any, threads: int) -> None:
    faiss = vectors.load_faiss()
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(threads or devices.cores())
    try:
        vectors.add_all(index, content)
    finally:
        faiss.omp_set_num_threads(before)


def _write(
    folder: Path, index: Any, doc_ids: Sequence[str], content: Any, threads: int, dead: IntArray | None = None
) -> None:
    """Add the last documents and write the index with the ids of all."""
    _add(index, content, threads)
    vectors.write_index(index, folder)
    save_ids(folder, doc_ids, dead)
