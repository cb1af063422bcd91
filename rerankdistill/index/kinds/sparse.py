"""Exact search over sparse vectors by inner product: postings by term, as an inverted index has them.

For students of kind ``sparse`` (SPLADE). A query's terms are walked through one after the other and their documents'
scores added up in float64, so that equal documents get equal scores. A document that shares no term with the query is
never returned. Memory: eight bytes a posting. On the CPU; ``device`` is ignored.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from rerankdistill import representations
from rerankdistill.cards import Card
from rerankdistill.index.ids import DocIds, check_ids, damaged, open_ids, save_ids
from rerankdistill.types import FloatArray, IntArray

OPTIONS = "options.json"


class SparseOptions(Card):
    """How postings are kept."""

    doc_terms: int = 0
    """Keep so many of a document's heaviest terms; 0: all that the student gave it."""


class Kind:
    """Keeps the promises of :class:`rerankdistill.contracts.Index`."""

    accepts: Literal["sparse"] = "sparse"
    Options = SparseOptions

    def __init__(self, postings: Any, ids: DocIds) -> None:
        """``postings``: ``csr_array [terms, documents]``."""
        self.ids, self._postings = ids, postings
        self._rows = {name: row for row, name in enumerate(ids.names)}

    @classmethod
    def build(
        cls,
        folder: Path,
        doc_ids: Sequence[str],
        content: Any,
        options: SparseOptions,
        device: str = "auto",  # noqa: ARG003
    ) -> None:
        """``content``: ``csr_array [n, terms]``."""
        check_ids(doc_ids)
        representations.check_documents(content, len(doc_ids))
        cls._write(folder, doc_ids, representations.top_terms(content, options.doc_terms).T.tocsr(), options)

    @classmethod
    def update(
        cls,
        folder: Path,
        source: Path,
        gone: Collection[str],
        doc_ids: Sequence[str],
        content: Any,
        device: str = "auto",
    ) -> None:
        """See :func:`rerankdistill.index.update.update_index`."""
        from scipy.sparse import hstack

        found = cls.open(source, device)
        stay = found.ids.others(gone)
        options = _options(source)
        postings = found._postings[:, stay]
        if len(doc_ids):
            found._check(content)
            postings = hstack([postings, representations.top_terms(content, options.doc_terms).T]).tocsr()
        cls._write(folder, found.ids.after(stay, doc_ids), postings, options)

    @staticmethod
    def _write(folder: Path, doc_ids: Sequence[str], postings: Any, options: SparseOptions) -> None:
        postings.sort_indices()
        representations.save(folder, postings)
        (folder / OPTIONS).write_text(options.model_dump_json(), "utf-8")
        save_ids(folder, doc_ids)

    @classmethod
    def open(cls, folder: Path, device: str = "auto") -> Kind:  # noqa: ARG003
        ids = open_ids(folder)
        postings = representations.load(folder)
        if postings.shape[1] != len(ids):
            what = f"postings of {postings.shape[1]} documents for {len(ids)} doc_ids"
            raise damaged(folder / representations.SPARSE, ValueError(what))
        return cls(postings, ids)

    def search(self, queries: Any, depth: int) -> list[list[tuple[str, float]]]:
        """``csr_array [q, terms]`` to at most ``depth`` (doc_id, inner product) a query."""
        self._check(queries)
        out = []
        for query in range(representations.count(queries)):
            scores = self._scores(queries, query)
            rows = np.flatnonzero(scores)
            if len(rows) > depth:
                cut = np.partition(scores[rows], len(rows) - depth)[len(rows) - depth]
                rows = rows[scores[rows] >= cut]
            out.append(self.ids.ordered(rows, scores[rows], depth))
        return out

    def score(self, query: Any, doc_ids: Sequence[str]) -> FloatArray:
        """``[len(doc_ids)]`` inner products of one query, a ``csr_array [1, terms]``, with these documents."""
        self._check(query)
        rows: IntArray = np.asarray([self._rows[doc_id] for doc_id in doc_ids], np.int64)
        return self._scores(query, 0)[rows]

    def _scores(self, queries: Any, query: int) -> FloatArray:
        """``[documents]`` float32."""
        part = slice(queries.indptr[query], queries.indptr[query + 1])
        terms, weights = queries.indices[part], queries.data[part].astype(np.float64)
        terms, weights = terms[order := np.argsort(terms, kind="stable")], weights[order]
        ends = self._postings.indptr
        lengths = ends[terms + 1] - ends[terms]
        places = [np.arange(ends[term], ends[term + 1]) for term in terms]
        at = np.concatenate(places) if places else np.empty(0, np.int64)
        products = np.repeat(weights, lengths) * self._postings.data[at]
        totals = np.bincount(self._postings.indices[at], weights=products, minlength=len(self.ids))
        return totals.astype(np.float32)

    def _check(self, queries: Any) -> None:
        representations.check_terms(queries, self._postings.shape[0])


def _options(folder: Path) -> SparseOptions:
    """How an index was built; one of before this was written keeps all terms."""
    path = folder / OPTIONS
    return SparseOptions.model_validate_json(path.read_text("utf-8")) if path.is_file() else SparseOptions()
