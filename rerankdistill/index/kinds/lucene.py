"""BM25 by Lucene: pyserini's Anserini, for figures that the literature can be compared with.

The folder ``lucene`` inside is a plain Lucene index under the real doc_ids: pyserini's ``LuceneSearcher`` opens it.
Lucene stores a document's length in one byte, so that scores differ a little from the ``bm25`` kind's. Anserini rounds
scores to four decimals, cuts ties by doc_id and lowers each further one of equal scores by 1e-6.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from rerankdistill import devices
from rerankdistill.cards import Card
from rerankdistill.errors import DataError
from rerankdistill.index.ids import DocIds, check_ids, damaged, open_ids, save_ids
from rerankdistill.index.java import java_list, start

BATCH = 1000
"""Documents handed to Java at a time."""
FOLDER, OPTIONS = "lucene", "options.json"


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
    mapped = (FOLDER,)
    living = (f"{FOLDER}/write.lock",)

    def __init__(self, searcher: Any, ids: DocIds, threads: int) -> None:
        self._searcher, self.ids, self._threads = searcher, ids, threads

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
        indexer = start()("io.anserini.index.SimpleIndexer")(_arguments(folder / FOLDER, options))
        added = 0
        for at in range(0, len(doc_ids), BATCH):
            pairs = zip(doc_ids[at : at + BATCH], content[at : at + BATCH], strict=True)
            added += int(indexer.addRawDocuments([json.dumps({"id": name, "contents": text}) for name, text in pairs]))
        indexer.close()
        if not added:
            raise DataError("no document has a word that BM25 could index", fix="check the collection's texts")
        (folder / OPTIONS).write_text(options.model_dump_json(), "utf-8")
        save_ids(folder, doc_ids)

    @classmethod
    def open(cls, folder: Path, device: str = "auto") -> Kind:  # noqa: ARG003
        java, ids = start(), open_ids(folder)
        try:
            options = LuceneOptions.model_validate_json((folder / OPTIONS).read_text("utf-8"))
            searcher = java("io.anserini.search.SimpleSearcher")(str(folder / FOLDER))
        except Exception as error:  # pyjnius gives one class to everything that Lucene raises
            raise damaged(folder / FOLDER, error) from error
        searcher.set_analyzer(_analyzer(options))
        searcher.set_bm25(options.k1, options.b)
        return cls(searcher, ids, devices.cores())

    def search(self, queries: Sequence[str], depth: int) -> list[list[tuple[str, float]]]:
        """At most ``depth`` (doc_id, score) a query; none for a query without a known word."""
        numbers = [str(number) for number in range(len(queries))]
        if not numbers:
            return []
        found = self._searcher.batch_search(java_list(queries), java_list(numbers), depth, self._threads)
        return hits_of(found, len(numbers))


def hits_of(found: Any, queries: int) -> list[list[tuple[str, float]]]:
    """What Anserini found for so many queries, which are called by their numbers, each list in the order that an index
    promises; empty for a query that was not asked."""
    hits = {entry.getKey(): entry.getValue() for entry in found.entrySet().toArray()}
    rows = ([(str(hit.docid), float(hit.score)) for hit in hits.get(str(n)) or ()] for n in range(queries))
    return [sorted(row, key=lambda hit: (-hit[1], hit[0])) for row in rows]


def _arguments(folder: Path, options: LuceneOptions) -> list[str]:
    """Anserini's command line for indexing."""
    out = ["-input", "", "-collection", "JsonCollection", "-index", str(folder), "-threads", str(devices.cores())]
    if options.pretokenized:
        return [*out, "-pretokenized"]
    return [*out, "-stemmer", options.stemmer, *([] if options.stopwords else ["-keepStopwords"])]


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
