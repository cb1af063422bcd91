"""BM25 by Lucene: pyserini's Anserini, for figures that the literature can be compared with.

The folder ``lucene`` inside is a plain Lucene index under the real doc_ids: pyserini's ``LuceneSearcher`` opens it.
Lucene stores a document's length in one byte, so that scores differ a little from the ``bm25`` kind's. Anserini rounds
scores to four decimals, cuts ties by doc_id and lowers each further one of equal scores by 1e-6.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from rerankdistill.cards import Card
from rerankdistill.errors import DataError
from rerankdistill.index import anserini
from rerankdistill.index.ids import DocIds, check_ids, damaged, open_ids, save_ids
from rerankdistill.index.java import start

OPTIONS = "options.json"


class LuceneOptions(Card):
    """BM25 and the analysis.

    Attributes:
        k1, b: saturation of term frequency and strength of length normalisation.
        stemmer: of Anserini's English analysis.
        stopwords: whether Lucene's 33 English stop words are dropped.
        pretokenized: texts are tokens already, separated by spaces: nothing is stemmed or dropped.
    """

    k1: float = Field(default=0.9, ge=0, allow_inf_nan=False)
    b: float = Field(default=0.4, ge=0, le=1)
    stemmer: Literal["porter", "krovetz", "none"] = "porter"
    stopwords: bool = True
    pretokenized: bool = False


Options = LuceneOptions


class Kind:
    """Keeps the promises of :class:`rerankdistill.contracts.Index`."""

    accepts: Literal["texts", "vectors"] = "texts"
    Options = LuceneOptions
    mapped = (anserini.FOLDER,)
    living = (f"{anserini.FOLDER}/{anserini.LOCK}",)

    def __init__(self, searcher: Any, ids: DocIds) -> None:
        self._searcher, self.ids = searcher, ids

    @classmethod
    def build(
        cls,
        folder: Path,
        doc_ids: Sequence[str],
        content: Sequence[str],
        options: LuceneOptions,
        device: str = "auto",  # noqa: ARG003  Lucene computes on the CPU
    ) -> None:
        check_ids(doc_ids)
        cls._write(folder, doc_ids, content, options)
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
        anserini.keep(folder, source, gone)
        cls._write(folder, doc_ids, content, _options(source))
        save_ids(folder, ids.after(ids.others(gone), doc_ids))

    @staticmethod
    def _write(folder: Path, doc_ids: Sequence[str], content: Sequence[str], options: LuceneOptions) -> None:
        empty = DataError("no document has a word that BM25 could index", fix="check the collection's texts")
        anserini.fill(folder, _arguments(options), zip(doc_ids, content, strict=True), empty)
        (folder / OPTIONS).write_text(options.model_dump_json(), "utf-8")

    @classmethod
    def open(cls, folder: Path, device: str = "auto") -> Kind:  # noqa: ARG003
        options, searcher = _options(folder), anserini.searcher(folder, "SimpleSearcher")
        searcher.set_analyzer(_analyzer(options))
        searcher.set_bm25(options.k1, options.b)
        return cls(searcher, open_ids(folder))

    def search(self, queries: Sequence[str], depth: int) -> list[list[tuple[str, float]]]:
        """At most ``depth`` (doc_id, score) a query; none for a query without a known word."""
        return anserini.search(self._searcher, dict(enumerate(queries)), len(queries), depth)


def _options(folder: Path) -> LuceneOptions:
    try:
        return LuceneOptions.model_validate_json((folder / OPTIONS).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise damaged(folder / OPTIONS, error) from error


def _arguments(options: LuceneOptions) -> list[str]:
    """Anserini's command line for the analysis of documents."""
    if options.pretokenized:
        return ["-pretokenized"]
    return ["-stemmer", options.stemmer, *([] if options.stopwords else ["-keepStopwords"])]


def _analyzer(options: LuceneOptions) -> Any:
    """The query's side of the analysis that :func:`_arguments` asks for."""
    java = start()
    if options.pretokenized:
        return java("org.apache.lucene.analysis.core.WhitespaceAnalyzer")()
    english = java("io.anserini.analysis.DefaultEnglishAnalyzer")
    kept = () if options.stopwords else (java("org.apache.lucene.analysis.CharArraySet").EMPTY_SET,)
    if options.stemmer == "none":
        return english.newNonStemmingInstance(*kept)
    return english.newStemmingInstance(options.stemmer, *kept)
