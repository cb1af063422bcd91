"""Search over vectors of signed bytes, and again over the whole ones: a byte a dimension in memory, floats on disk.

What sentence-transformers calls the precision ``int8``: each dimension is divided by its largest magnitude among the
documents and rounded to -127 … 127 (faiss ``QT_8bit_direct_signed``), the query likewise, and what the bytes propose is
scored again by the whole vectors. Nearer to ``flat`` than ``sq8``, for disk instead of memory. On the CPU; ``device``
is checked and has no other effect.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rerankdistill.index import vectors
from rerankdistill.index.rescored import Rescored, RescoreOptions
from rerankdistill.types import FloatArray

TOP = 127


class Int8Options(RescoreOptions):
    """Attributes:
    scales: ``[d]`` the largest magnitude of each dimension; empty: those of the documents."""

    scales: tuple[float, ...] = ()


class Kind(Rescored):
    """Keeps the promises of :class:`rerankdistill.contracts.Index`."""

    Options = Int8Options

    @staticmethod
    def small(content: Any, options: Int8Options) -> tuple[Any, Int8Options]:
        faiss = vectors.load_faiss()
        width = int(content.shape[1])
        scales = np.full(width, 1e-12, np.float32)
        for start in range(0, len(content), vectors.BLOCK):
            block = np.asarray(content[start : start + vectors.BLOCK], np.float32)
            scales = np.maximum(scales, np.abs(block).max(axis=0))
        signed = faiss.ScalarQuantizer.QT_8bit_direct_signed
        index = faiss.IndexScalarQuantizer(width, signed, faiss.METRIC_INNER_PRODUCT)
        return index, options.model_copy(update={"scales": options.scales or tuple(scales.tolist())})

    @staticmethod
    def coded(block: FloatArray, options: Int8Options, *, query: bool) -> FloatArray:
        scales = np.asarray(options.scales, np.float32)
        if query:  # faiss multiplies bytes with bytes; a factor of its own changes no query's order
            block = block * scales
            return np.ascontiguousarray(
                np.rint(block / np.maximum(np.abs(block).max(axis=1, keepdims=True), 1e-12) * TOP)
            )
        return np.ascontiguousarray(np.clip(np.rint(block / scales * TOP), -TOP, TOP))
