"""Approximate search on the GPU: a graph of neighbours (NVIDIA cuVS' CAGRA, through faiss ``GpuIndexCagra``).

Ootomo et al., "CAGRA: Highly Parallel Graph Construction and Approximate Nearest Neighbor Search for GPUs", 2023. The
graph is built on the GPU and kept as one that a CPU can search as well (faiss ``IndexHNSWCagra``): with ``device =
"cpu"`` the same folder opens without a GPU. Building needs a faiss with cuVS and a GPU that it sees. A document may be
missed; what is found is scored exactly and ordered by (-score, doc_id).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from rerankdistill.cards import Card
from rerankdistill.errors import MissingDependency
from rerankdistill.index import vectors
from rerankdistill.index.ids import DocIds, check_ids, open_ids, save_ids
from rerankdistill.types import FloatArray, IntArray

FIX = (
    "on a machine with an NVIDIA GPU: conda install -c pytorch -c nvidia -c rapidsai -c conda-forge faiss-gpu-cuvs;"
    " without one, kind = 'hnsw'"
)


class CagraOptions(Card):
    """The graph.

    Attributes:
        degree: neighbours a document has in the graph.
        first_degree: neighbours before the graph is pruned.
        ef_search: documents considered for a query, at least the depth.
    """

    degree: int = Field(default=64, ge=2)
    first_degree: int = Field(default=128, ge=2)
    ef_search: int = Field(default=128, ge=1)


class Kind:
    """Keeps the promises of :class:`rerankdistill.contracts.Index`."""

    accepts: Literal["texts", "vectors"] = "vectors"
    Options = CagraOptions

    def __init__(self, index: Any, ids: DocIds, gpu: int | None) -> None:
        self.ids, self._index, self._on_gpu = ids, index, None
        self._vectors = vectors.stored(vectors.load_faiss().downcast_index(index.storage))
        if gpu is not None:
            faiss = vectors.load_faiss()
            self._resources = faiss.StandardGpuResources()
            self._on_gpu = faiss.index_cpu_to_gpu(self._resources, gpu, index)

    @classmethod
    def build(
        cls, folder: Path, doc_ids: Sequence[str], content: FloatArray, options: CagraOptions, device: str = "auto"
    ) -> None:
        """``content``: ``[n, d]``. Raises MissingDependency: a faiss without cuVS, or no GPU."""
        check_ids(doc_ids)
        vectors.check_vectors(content, doc_ids)
        gpu = _needed(device)
        faiss = vectors.load_faiss()
        config = faiss.GpuIndexCagraConfig()
        config.device, config.graph_degree = gpu, options.degree
        config.intermediate_graph_degree = options.first_degree
        metric, width = faiss.METRIC_INNER_PRODUCT, int(content.shape[1])
        index = faiss.GpuIndexCagra(faiss.StandardGpuResources(), width, metric, config)
        index.train(np.ascontiguousarray(content, np.float32))
        kept = faiss.IndexHNSWCagra(width, options.degree // 2, metric)
        kept.base_level_only = True
        index.copyTo(kept)
        kept.hnsw.efSearch = options.ef_search
        vectors.write_index(kept, folder)
        save_ids(folder, doc_ids)

    @classmethod
    def open(cls, folder: Path, device: str = "auto") -> Kind:
        gpu = vectors.gpu_number(device)
        ids = open_ids(folder)
        return cls(vectors.read_index(folder, ids), ids, gpu)

    def search(self, queries: FloatArray, depth: int) -> list[list[tuple[str, float]]]:
        """``[q, d]`` vectors to at most ``depth`` (doc_id, inner product) a query."""
        matrix = vectors.check_queries(queries, self._index.d)
        return vectors.search(self._propose, self._vectors, self.ids, matrix, depth, widen=False)

    def _propose(self, queries: FloatArray, fetch: int) -> tuple[FloatArray, IntArray]:
        faiss = vectors.load_faiss()
        effort = max(self._index.hnsw.efSearch, fetch)
        found: tuple[FloatArray, IntArray]
        if self._on_gpu is not None:
            params = faiss.SearchParametersCagra()
            params.itopk_size = effort
            found = self._on_gpu.search(queries, fetch, params=params)
        else:
            found = self._index.search(queries, fetch, params=faiss.SearchParametersHNSW(efSearch=effort))
        return found


def _needed(device: str) -> int:
    """The GPU that builds. Raises MissingDependency: what is missing, and the remedy."""
    faiss = vectors.load_faiss()
    if not hasattr(faiss, "GpuIndexCagra"):
        what = "index kind 'cagra' is built on a GPU by a faiss with cuVS, and the installed faiss has none"
        raise MissingDependency(what, where=f"device {device!r}", fix=FIX)
    gpu = vectors.gpu_number("cuda" if device == "auto" else device)
    if gpu is None:
        raise MissingDependency("index kind 'cagra' is built on a GPU", where=f"device {device!r}", fix=FIX)
    return gpu
