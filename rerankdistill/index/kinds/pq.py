"""Search over vectors that are kept as a few bytes each: product quantisation (faiss ``IndexPQ``).

Every document is scored, by the inner product of the query with what the codewords make of the document. Jégou, Douze
and Schmid, "Product Quantization for Nearest Neighbor Search", 2011. With ``opq`` the space is turned first (Ge et al.
2013). On the CPU; ``device`` is checked and has no other effect.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rerankdistill import codebooks
from rerankdistill.index import quantised, vectors
from rerankdistill.types import FloatArray


class PqOptions(quantised.CodeOptions):
    """How vectors become codes."""


class Kind(quantised.Quantised):
    """Keeps the promises of :class:`rerankdistill.contracts.Index`."""

    Options = PqOptions

    @classmethod
    def build(
        cls, folder: Path, doc_ids: Sequence[str], content: FloatArray, options: PqOptions, device: str = "auto"
    ) -> None:
        """``content``: ``[n, d]``, also memory-mapped."""
        vectors.check(doc_ids, content, device)
        books = quantised.books_for(content, options, 0)
        quantised.fill(codebooks.index_of(books), folder, doc_ids, content)
