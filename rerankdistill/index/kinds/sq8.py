"""Search over vectors that are kept as one byte a dimension: scalar quantisation (faiss ``IndexScalarQuantizer``).

Each dimension's range among the documents is cut into 256 steps: a quarter of ``flat``'s memory, and nothing else is
kept. Every document is scored, by the inner product of the whole query with what the bytes make of the document. A
document that is added later is cut at the ranges of those that were there first. On the CPU; ``device`` is checked and
has no other effect.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from rerankdistill import codebooks
from rerankdistill.cards import Card
from rerankdistill.index import quantised, vectors
from rerankdistill.types import FloatArray


class Sq8Options(Card):
    """The ranges.

    Attributes:
        train_size: documents that they are read from, drawn by ``seed``; 0: all, so that none is cut.
        seed: equal seeds give equal indexes.
    """

    train_size: int = Field(default=0, ge=0)
    seed: int = 1


class Kind(quantised.Quantised):
    """Keeps the promises of :class:`rerankdistill.contracts.Index`."""

    Options = Sq8Options

    @classmethod
    def build(
        cls, folder: Path, doc_ids: Sequence[str], content: FloatArray, options: Sq8Options, device: str = "auto"
    ) -> None:
        """``content``: ``[n, d]``, also memory-mapped."""
        vectors.check(doc_ids, content, device)
        faiss = vectors.load_faiss()
        quantiser = faiss.ScalarQuantizer.QT_8bit
        index = faiss.IndexScalarQuantizer(int(content.shape[1]), quantiser, faiss.METRIC_INNER_PRODUCT)
        index.train(codebooks.sample(content, options.train_size or len(doc_ids), options.seed))
        quantised.fill(index, folder, doc_ids, content)
