"""A bi-encoder as a teacher: the dot product of two vectors, hence any query against any document of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Self

import numpy as np

from rerankdistill import devices
from rerankdistill.artifacts import fingerprint
from rerankdistill.cards import Card, parse
from rerankdistill.errors import DataError, UsageError
from rerankdistill.scores.card import Context, Lengths, ScorerCard
from rerankdistill.types import FloatArray, Group, Query, Scale, View

if TYPE_CHECKING:
    from rerankdistill.contracts import Role
    from rerankdistill.encoding import TextEncoder

REMEMBERED = 100_000
"""Vectors of texts that are kept between batches."""


class BiEncoderOptions(Card):
    """None of its own."""


class Kind:
    """Scores by any sentence-transformers bi-encoder.

    Args:
        doc_vectors: doc_ids and vectors ``[n, d]`` that this encoder made of these documents in this view: such a
            document is looked up by its id and never encoded. The caller vouches for it.
    """

    Options = BiEncoderOptions
    needs_texts = True
    scale = Scale.SIMILARITY

    def __init__(
        self,
        model: str,
        revision: str | None = None,
        view: View = View.TITLE_TEXT,
        lengths: Lengths | None = None,
        device: str = "auto",
        dtype: devices.Dtype = "auto",
        doc_vectors: tuple[Sequence[str], FloatArray] | None = None,
    ) -> None:
        self.model, self.revision, self.view, self.device, self.dtype = model, revision, view, device, dtype
        cuts = lengths or Lengths()
        self._max_tokens = {k: v for k, v in (("query", cuts.query), ("doc", cuts.doc)) if v}
        self._rows: dict[str, int] = {}
        self._matrix: FloatArray | None = None
        self._remembered: dict[tuple[str, str], FloatArray] = {}
        if doc_vectors is not None:
            self.use_vectors(*doc_vectors)

    @classmethod
    def open(cls, card: ScorerCard, context: Context) -> Self:
        parse(BiEncoderOptions, card.options, f"{card.name}: options")
        card.require_scale(cls.scale)
        vectors = context.doc_vectors
        return cls(card.model, card.pinned_revision, card.view, card.lengths, context.device, card.dtype, vectors)

    @cached_property
    def encoder(self) -> TextEncoder:
        """The encoder, loaded when first needed."""
        from rerankdistill.encoding import open_encoder

        return open_encoder(
            self.model, revision=self.revision, device=self.device, dtype=self.dtype, max_tokens=self._max_tokens
        )

    @cached_property
    def fingerprint(self) -> str:
        return fingerprint("bi_encoder", self.encoder.fingerprint, self.view)

    def use_vectors(self, doc_ids: Sequence[str], vectors: FloatArray) -> None:
        """Look these documents up instead of encoding them. Raises UsageError when ids and rows differ in number."""
        if len(doc_ids) != len(vectors):
            raise UsageError(f"{len(doc_ids)} doc_ids for {len(vectors)} vectors")
        self._rows = {doc_id: row for row, doc_id in enumerate(doc_ids)}
        self._matrix = vectors

    def judge(self, groups: Sequence[Group]) -> list[FloatArray]:
        """Similarities; every distinct text of the call is encoded once."""
        queries = self._encode([group.query.text for group in groups], "query")
        fresh = self._encode(
            [t for group in groups for i, t in zip(group.doc_ids, group.texts, strict=True) if i not in self._rows],
            "doc",
        )
        found: list[FloatArray] = []
        for group in groups:
            pairs = zip(group.doc_ids, group.texts, strict=True)
            docs = [fresh[text] if doc_id not in self._rows else self._vector(doc_id) for doc_id, text in pairs]
            found.append((np.stack(docs) @ queries[group.query.text]).astype(np.float32))
        return found

    def matrix(self, queries: Sequence[Query], doc_ids: Sequence[str]) -> FloatArray:
        """``[len(queries), len(doc_ids)]`` similarities. Raises DataError for a document without a vector."""
        encoded = self._encode([query.text for query in queries], "query")
        docs = np.stack([self._vector(doc_id) for doc_id in doc_ids]).astype(np.float32)
        return np.stack([docs @ encoded[query.text] for query in queries]).astype(np.float32)

    def _vector(self, doc_id: str) -> FloatArray:
        if self._matrix is None or doc_id not in self._rows:
            fix = "encode the collection with this teacher and hand it over as doc_vectors"
            raise DataError(f"no vector of document {doc_id!r}", where=self.model, fix=fix)
        vector: FloatArray = self._matrix[self._rows[doc_id]]
        return vector

    def _encode(self, texts: Sequence[str], role: Role) -> dict[str, FloatArray]:
        """The vectors of distinct texts; those met before are remembered."""
        distinct = list(dict.fromkeys(texts))
        new = [text for text in distinct if (role, text) not in self._remembered]
        vectors = self.encoder.encode(new, role)
        fresh = dict(zip(new, vectors, strict=True))
        found = {text: fresh[text] if text in fresh else self._remembered[role, text] for text in distinct}
        if len(self._remembered) + len(fresh) > REMEMBERED:
            self._remembered.clear()
        self._remembered.update({(role, text): vector for text, vector in fresh.items()})
        return found
