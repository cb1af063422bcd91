"""Exact search over vectors by inner product (faiss ``IndexFlatIP``), on the GPU when there is one.

Its answer is exact, ties at the cut included. Memory: four bytes a dimension and document.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from rerankdistill.cards import Card
from rerankdistill.index import vectors
from rerankdistill.index.ids import DocIds, open_ids, save_ids
from rerankdistill.types import FloatArray, IntArray

GPU_DEPTH = 2048
"""The most neighbours that faiss finds on a GPU; a deeper search is done on the CPU."""


class FlatOptions(Card):
    """An exact index has none."""


Options = FlatOptions


class Kind(vectors.Renewed):
    """Keeps the promises of :class:`rerankdistill.contracts.Index`."""

    accepts: Literal["texts", "vectors"] = "vectors"
    Options = FlatOptions

    def __init__(self, index: Any, ids: DocIds, gpu: int | None) -> None:
        self.ids, self._index, self._on_gpu = ids, index, None
        self._vectors = vectors.stored(index)
        if gpu is not None:
            faiss = vectors.load_faiss()
            self._resources = faiss.StandardGpuResources()
            self._on_gpu = faiss.index_cpu_to_gpu(self._resources, gpu, index)

    @classmethod
    def build(
        cls,
        folder: Path,
        doc_ids: Sequence[str],
        content: FloatArray,
        options: FlatOptions,  # noqa: ARG003  it has none
        device: str = "auto",
    ) -> None:
        """``content``: ``[n, d]``, also memory-mapped. ``device`` is only checked: storing needs no GPU."""
        vectors.check(doc_ids, content, device)
        index = vectors.load_faiss().IndexFlatIP(int(content.shape[1]))
        vectors.add_all(index, content)
        vectors.write_index(index, folder)
        save_ids(folder, doc_ids)

    @classmethod
    def open(cls, folder: Path, device: str = "auto") -> Kind:
        gpu = vectors.gpu_number(device)
        ids = open_ids(folder)
        return cls(vectors.read_index(folder, ids), ids, gpu)

    def search(self, queries: FloatArray, depth: int) -> list[list[tuple[str, float]]]:
        """``[q, d]`` vectors to at most ``depth`` (doc_id, inner product) a query."""
        matrix = vectors.check_queries(queries, self._index.d)
        return vectors.search(self._propose, self._vectors, self.ids, matrix, depth, widen=True)

    def _propose(self, queries: FloatArray, fetch: int) -> tuple[FloatArray, IntArray]:
        index = self._index if self._on_gpu is None or fetch > GPU_DEPTH else self._on_gpu
        found: tuple[FloatArray, IntArray] = index.search(queries, fetch)
        return found
