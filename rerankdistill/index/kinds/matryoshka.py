"""Search by the first dimensions, and again by all of them, for students whose short vectors already rank.

Kusupati et al., "Matryoshka Representation Learning", 2022: the funnel. The first ``dimensions`` of a vector, brought
to length one, propose documents (faiss ``IndexFlatIP``); the whole vectors from disk score them. For students that were
trained by prefixes (``[variants] dimensions``); with any other the short vectors miss more. On the CPU; ``device`` is
checked and has no other effect.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from pydantic import Field

from rerankdistill.errors import CardError
from rerankdistill.index import vectors
from rerankdistill.index.rescored import Rescored, RescoreOptions
from rerankdistill.types import FloatArray


class MatryoshkaOptions(RescoreOptions):
    """Attributes:
    dimensions: of the short vectors; 0: a quarter of all, eight at least."""

    dimensions: int = Field(default=0, ge=0)


class Kind(Rescored):
    """Keeps the promises of :class:`rerankdistill.contracts.Index`."""

    Options = MatryoshkaOptions

    @staticmethod
    def small(content: Any, options: MatryoshkaOptions) -> tuple[Any, MatryoshkaOptions]:
        width = int(content.shape[1])
        short = options.dimensions or min(width, max(8, width // 4))
        if short > width:
            raise CardError(
                f"dimensions = {short} of vectors that have {width}", where="matryoshka", fix="ask for less"
            )
        return vectors.load_faiss().IndexFlatIP(short), options.model_copy(update={"dimensions": short})

    @staticmethod
    def coded(block: FloatArray, options: MatryoshkaOptions, *, query: bool) -> FloatArray:  # noqa: ARG004
        short = block[:, : options.dimensions]
        lengths = np.linalg.norm(short, axis=1, keepdims=True)
        return np.ascontiguousarray(short / np.maximum(lengths, 1e-12))
