"""Search by one bit a dimension, and again by the whole vectors: 32 times less memory than ``flat`` (faiss
``IndexBinaryFlat``).

A bit says whether a dimension is above 0; documents whose bits differ least from the query's (Hamming distance) are
proposed, and scored by the whole vectors from disk. Yamada, Asai and Hajishirzi, "Efficient Passage Retrieval with
Hashing for Open-domain Question Answering", 2021. Suits vectors whose dimensions lie around 0, and many of them. On the
CPU; ``device`` is checked and has no other effect.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rerankdistill.index import vectors
from rerankdistill.index.rescored import Rescored, RescoreOptions
from rerankdistill.types import FloatArray


class BinaryOptions(RescoreOptions):
    """How much is looked at twice."""


class Kind(Rescored):
    """Keeps the promises of :class:`rerankdistill.contracts.Index`."""

    Options = BinaryOptions

    @staticmethod
    def small(content: Any, options: BinaryOptions) -> tuple[Any, BinaryOptions]:
        return vectors.load_faiss().IndexBinaryFlat(-(-int(content.shape[1]) // 8) * 8), options

    @staticmethod
    def coded(block: FloatArray, options: BinaryOptions, *, query: bool) -> Any:  # noqa: ARG004  both sides alike
        return np.packbits(block > 0, axis=1)
