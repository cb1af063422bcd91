"""BM25 by bm25s: a first stage that needs no Java and no GPU. Exact, also in how it cuts ties.

Options: ``k1``, ``b``, ``language``, ``stopwords`` (see :class:`rerankdistill.lexical.Bm25Options`).
A document that shares no term with the query is never returned. Every score depends on the whole collection: beside
the scores it keeps how often each document has each term, from which an update computes all of them anew.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Literal

from rerankdistill.index.ids import DocIds, check_ids, open_ids, save_ids
from rerankdistill.lexical import Bm25Options, Lexical

Options = Bm25Options


class Kind:
    """Keeps the promises of :class:`rerankdistill.contracts.Index`. Its :attr:`lexical` serves a lexical teacher."""

    accepts: Literal["texts", "vectors"] = "texts"
    Options = Bm25Options

    def __init__(self, lexical: Lexical, ids: DocIds) -> None:
        self.lexical, self.ids = lexical, ids

    @classmethod
    def build(
        cls,
        folder: Path,
        doc_ids: Sequence[str],
        content: Sequence[str],
        options: Bm25Options,
        device: str = "auto",  # noqa: ARG003  bm25s computes on the CPU
    ) -> None:
        check_ids(doc_ids)
        Lexical.build(content, options).save(folder)
        save_ids(folder, doc_ids)

    @classmethod
    def update(
        cls,
        folder: Path,
        source: Path,
        gone: Collection[str],
        doc_ids: Sequence[str],
        content: Sequence[str],
        device: str = "auto",  # noqa: ARG003
    ) -> None:
        """See :func:`rerankdistill.index.update.update_index`."""
        ids = open_ids(source)
        stay = ids.others(gone)
        Lexical.renew(source, stay, content).save(folder)
        save_ids(folder, ids.after(stay, doc_ids))

    @classmethod
    def open(cls, folder: Path, device: str = "auto") -> Kind:  # noqa: ARG003
        return cls(Lexical.open(folder), open_ids(folder))

    def search(self, queries: Sequence[str], depth: int) -> list[list[tuple[str, float]]]:
        """At most ``depth`` (doc_id, score) a query; none for a query without a known word."""
        names = self.ids.names
        out = []
        for rows, scores in zip(*self.lexical.search(queries, depth, self.ids.places), strict=True):
            pairs = zip(rows.tolist(), scores.tolist(), strict=True)
            out.append([(names[row], score) for row, score in pairs if row >= 0])
        return out
