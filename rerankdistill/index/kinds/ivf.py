"""Search over some lists of whole vectors: an inverted file (faiss ``IndexIVFFlat``).

A document lies in the list of its nearest centroid; a search opens the ``nprobe`` lists whose centroids score highest
and scores what is in them exactly. Memory as ``flat``; a search reads a fraction of it. On the CPU; ``device`` is
checked and has no other effect. Centroids have length one: give it a normalised student, or choose ``flat``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from rerankdistill import codebooks
from rerankdistill.cards import Card
from rerankdistill.index import quantised, vectors
from rerankdistill.types import FloatArray


class IvfOptions(Card):
    """The lists.

    Attributes:
        nlist: lists; 0: about four times the square root of the collection's size, with 39 documents each at least.
        nprobe: lists that a search opens; 0: an eighth of them, eight at least.
        train_size: documents that centroids are trained on. 0: 256 for each list.
        seed: of the training: equal seeds give equal indexes.
    """

    nlist: int = Field(default=0, ge=0)
    nprobe: int = Field(default=0, ge=0)
    train_size: int = Field(default=0, ge=0)
    seed: int = 1


class Kind(quantised.Quantised):
    """Keeps the promises of :class:`rerankdistill.contracts.Index`."""

    Options = IvfOptions

    @classmethod
    def build(
        cls, folder: Path, doc_ids: Sequence[str], content: FloatArray, options: IvfOptions, device: str = "auto"
    ) -> None:
        """``content``: ``[n, d]``, also memory-mapped."""
        vectors.check(doc_ids, content, device)
        nlist = options.nlist or codebooks.lists_for(len(doc_ids))
        index = codebooks.train_lists(content, nlist, options.seed, options.train_size)
        index.nprobe = codebooks.probes(nlist, options.nprobe)
        quantised.fill(index, folder, doc_ids, content)
