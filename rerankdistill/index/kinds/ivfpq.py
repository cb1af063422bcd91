"""Search over some lists of vectors that are kept as a few bytes each: an inverted file (faiss ``IndexIVFPQ``).

A document lies in the list of its nearest centroid, and what the centroid leaves over is coded by product quantisation
(:mod:`rerankdistill.index.kinds.pq`). A search opens the ``nprobe`` lists whose centroids score highest. A document in
another list is missed; among those that are opened the answer is complete. On the CPU; ``device`` is checked and has no
other effect. Centroids have length one: give it a normalised student, or choose ``pq``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from rerankdistill import codebooks
from rerankdistill.index import quantised, vectors
from rerankdistill.types import FloatArray


class IvfPqOptions(quantised.CodeOptions):
    """How vectors become codes, and lists.

    Attributes:
        nlist: lists; 0: about four times the square root of the collection's size, with 39 documents each at least.
        nprobe: lists that a search opens; 0: an eighth of them, eight at least.
    """

    nlist: int = Field(default=0, ge=0)
    nprobe: int = Field(default=0, ge=0)


class Kind(quantised.Quantised):
    """Keeps the promises of :class:`rerankdistill.contracts.Index`."""

    Options = IvfPqOptions

    @classmethod
    def build(
        cls, folder: Path, doc_ids: Sequence[str], content: FloatArray, options: IvfPqOptions, device: str = "auto"
    ) -> None:
        """``content``: ``[n, d]``, also memory-mapped."""
        vectors.check(doc_ids, content, device)
        books = quantised.books_for(content, options, options.nlist or codebooks.lists_for(len(doc_ids)))
        quantised.fill(codebooks.index_of(books, options.nprobe), folder, doc_ids, content)
