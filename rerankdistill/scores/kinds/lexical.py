"""BM25 as a teacher: free over any query and any document of the collection."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np

from rerankdistill.artifacts import fingerprint
from rerankdistill.cards import Card, parse
from rerankdistill.errors import DataError, UsageError
from rerankdistill.lexical import Lexical
from rerankdistill.scores.card import Context, ScorerCard
from rerankdistill.types import FloatArray, Group, IntArray, Query, Scale, View


class LexicalOptions(Card):
    """None of its own: ``k1``, ``b`` and the analysis are the index's."""


class Kind:
    """Scores by an opened BM25 index. A pair without a common term scores 0.

    Args:
        doc_ids: of the index's documents, in its order.
    """

    Options = LexicalOptions
    needs_texts = False
    scale = Scale.LEXICAL

    def __init__(self, lexical: Lexical, doc_ids: Sequence[str], view: View = View.TITLE_TEXT) -> None:
        if len(doc_ids) != lexical.count:
            raise UsageError(f"{len(doc_ids)} doc_ids for a BM25 index of {lexical.count} documents")
        self.view = view
        self._lexical = lexical
        self._numbers = {doc_id: number for number, doc_id in enumerate(doc_ids)}

    @classmethod
    def open(cls, card: ScorerCard, context: Context) -> Self:
        parse(LexicalOptions, card.options, f"{card.name}: options")
        card.require_scale(cls.scale)
        if context.lexical is None:
            raise UsageError("a lexical teacher needs a BM25 index", where=card.name)
        return cls(*context.lexical(), view=card.view)

    @property
    def fingerprint(self) -> str:
        return fingerprint("lexical", self._lexical.fingerprint, self.view)

    def judge(self, groups: Sequence[Group]) -> list[FloatArray]:
        """BM25 scores. Raises DataError for a document that the index lacks."""
        found: list[FloatArray] = []
        for group in groups:
            found.append(self._lexical.matrix([group.query.text], self._rows(group.doc_ids))[0])
        return found

    def matrix(self, queries: Sequence[Query], doc_ids: Sequence[str]) -> FloatArray:
        """``[len(queries), len(doc_ids)]`` BM25 scores."""
        return self._lexical.matrix([query.text for query in queries], self._rows(doc_ids))

    def _rows(self, doc_ids: Sequence[str]) -> IntArray:
        try:
            return np.fromiter((self._numbers[doc_id] for doc_id in doc_ids), np.int64, len(doc_ids))
        except KeyError as error:
            fix = "build the index of this collection again"
            raise DataError(f"document {error.args[0]!r} is not in the BM25 index", fix=fix) from error
