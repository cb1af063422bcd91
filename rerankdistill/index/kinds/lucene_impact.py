"""Sparse vectors in Lucene: an impact index as Anserini writes and searches it, for students of kind ``sparse``.

The folder ``lucene`` inside is a plain impact index, its terms the numbers of the student's vocabulary (``t101``).
Lucene counts words, so weights become whole numbers, ``scale`` to one, and a weight that rounds to none is left out;
scores are divided by the square of it again. Anserini cuts ties by doc_id.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from rerankdistill import representations
from rerankdistill.cards import Card
from rerankdistill.errors import DataError
from rerankdistill.index import anserini
from rerankdistill.index.ids import DocIds, check_ids, damaged, open_ids, save_ids
from rerankdistill.index.java import start

OPTIONS, TERMS = "options.json", "terms.json"
MOST = 4096
"""A document's weight of one term at most, in whole numbers: Lucene reads the term as often."""


class LuceneImpactOptions(Card):
    """How weights are kept."""

    scale: int = Field(default=100, ge=1, le=1000)
    """The whole number that a weight of one becomes."""
    doc_terms: int = Field(default=0, ge=0)
    """Keep so many of a document's heaviest terms; 0: all that the student gave it."""


Options = LuceneImpactOptions


class Kind:
    """Keeps the promises of :class:`rerankdistill.contracts.Index`."""

    accepts: Literal["sparse"] = "sparse"
    Options = LuceneImpactOptions
    mapped = (anserini.FOLDER,)
    living = (f"{anserini.FOLDER}/{anserini.LOCK}",)

    def __init__(self, searcher: Any, ids: DocIds, terms: int, scale: int) -> None:
        self._searcher, self.ids, self._terms, self._scale = searcher, ids, terms, scale

    @classmethod
    def build(
        cls,
        folder: Path,
        doc_ids: Sequence[str],
        content: Any,
        options: LuceneImpactOptions,
        device: str = "auto",  # noqa: ARG003  Lucene computes on the CPU
    ) -> None:
        """``content``: ``csr_array [n, terms]``."""
        check_ids(doc_ids)
        representations.check_documents(content, len(doc_ids))
        cls._write(folder, doc_ids, content, options, content.shape[1])
        save_ids(folder, doc_ids)

    @classmethod
    def update(
        cls,
        folder: Path,
        source: Path,
        gone: Collection[str],
        doc_ids: Sequence[str],
        content: Any,
        device: str = "auto",  # noqa: ARG003
    ) -> None:
        """See :func:`rerankdistill.index.update.update_index`."""
        ids, (options, terms) = open_ids(source), _about(source)
        if doc_ids:
            representations.check_terms(content, terms)
        anserini.keep(folder, source, gone)
        cls._write(folder, doc_ids, content, options, terms)
        save_ids(folder, ids.after(ids.others(gone), doc_ids))

    @staticmethod
    def _write(folder: Path, doc_ids: Sequence[str], content: Any, options: LuceneImpactOptions, terms: int) -> None:
        kept = representations.top_terms(content, options.doc_terms).tocsr() if doc_ids else None
        docs = ((doc_id, _words(kept, row, options.scale)) for row, doc_id in enumerate(doc_ids))
        empty = DataError("no document has a weight that the index could hold", fix="raise options.scale")
        anserini.fill(folder, ["-impact", "-pretokenized"], docs, empty)
        (folder / OPTIONS).write_text(options.model_dump_json(), "utf-8")
        (folder / TERMS).write_text(json.dumps(terms), "utf-8")

    @classmethod
    def open(cls, folder: Path, device: str = "auto") -> Kind:  # noqa: ARG003
        options, terms = _about(folder)
        return cls(anserini.searcher(folder, "SimpleImpactSearcher"), open_ids(folder), terms, options.scale)

    def search(self, queries: Any, depth: int) -> list[list[tuple[str, float]]]:
        """``csr_array [q, terms]`` to at most ``depth`` (doc_id, inner product) a query."""
        representations.check_terms(queries, self._terms)
        count = representations.count(queries)
        asked = {number: _java_map(terms) for number in range(count) if (terms := self._asked(queries, number))}
        rows = anserini.search(self._searcher, asked, count, depth)
        return [[(doc_id, score / self._scale**2) for doc_id, score in row] for row in rows]

    def _asked(self, queries: Any, row: int) -> dict[str, int]:
        """One query's terms, as whole numbers."""
        numbers, weights = _rounded(queries, row, self._scale)
        return {f"t{number}": weight for number, weight in zip(numbers, weights, strict=True)}


def _about(folder: Path) -> tuple[LuceneImpactOptions, int]:
    """How an index was built, and how many terms there are."""
    try:
        options = LuceneImpactOptions.model_validate_json((folder / OPTIONS).read_text("utf-8"))
        return options, int(json.loads((folder / TERMS).read_text("utf-8")))
    except (OSError, ValueError) as error:
        raise damaged(folder, error) from error


def _rounded(rows: Any, row: int, scale: int) -> tuple[list[int], list[int]]:
    """The terms of one sparse row that count, and their weights as whole numbers."""
    part = slice(rows.indptr[row], rows.indptr[row + 1])
    weights = np.clip(np.rint(rows.data[part].astype(np.float64) * scale), 0, MOST).astype(np.int64)
    counts = weights > 0
    return rows.indices[part][counts].tolist(), weights[counts].tolist()


def _words(rows: Any, row: int, scale: int) -> str:
    """A document as Lucene reads it: every term as often as it weighs."""
    return " ".join(" ".join([f"t{term}"] * weight) for term, weight in zip(*_rounded(rows, row, scale), strict=True))


def _java_map(terms: dict[str, int]) -> Any:
    java = start()
    made, number = java("java.util.HashMap")(), java("java.lang.Integer")
    for term, weight in terms.items():
        made.put(term, number(weight))
    return made
