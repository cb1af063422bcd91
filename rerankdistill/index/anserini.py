"""A folder of Lucene's as Anserini fills and searches it: what the ``lucene`` and ``lucene_impact`` kinds share."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from itertools import islice
from pathlib import Path
from typing import Any

from rerankdistill import artifacts, devices
from rerankdistill.errors import DataError
from rerankdistill.index.ids import damaged
from rerankdistill.index.java import java_list, start

BATCH = 1000
"""Documents handed to Java at a time."""
FOLDER, LOCK = "lucene", "write.lock"
"""Lucene's folder within an index, and the file by which it keeps a second writer out."""


def fill(folder: Path, options: Iterable[str], docs: Iterable[tuple[str, str]], empty: DataError) -> None:
    """Add documents to the Lucene index in an index's folder, which need not be there.

    Args:
        options: of Anserini's command line.
        docs: (doc_id, text). One of which nothing is left after the analysis is passed over.
        empty: raised where the index holds no document then.
    """
    place = folder / FOLDER
    arguments = ["-input", "", "-collection", "JsonCollection", "-index", str(place), *options]
    arguments += ["-threads", str(devices.cores()), *(["-append"] if place.is_dir() else [])]
    indexer, rest = start()("io.anserini.index.SimpleIndexer")(arguments), iter(docs)
    while batch := [json.dumps({"id": doc_id, "contents": text}) for doc_id, text in islice(rest, BATCH)]:
        indexer.addRawDocuments(batch)
    indexer.close()
    reader = searcher(folder, "SimpleSearcher")
    count = reader.get_total_num_docs()
    reader.close()
    if not count:
        raise empty


def keep(folder: Path, source: Path, gone: Collection[str]) -> None:
    """Put into an index's folder what the Lucene index of another one holds but the documents ``gone``.

    Files that stay are linked: Lucene never changes one. Those with a document that went are merged into new ones,
    so that every number that scores are computed from is that of the documents which are left.
    """
    (folder / FOLDER).mkdir()
    for path in (source / FOLDER).iterdir():
        if path.name != LOCK:
            artifacts.link(path, folder / FOLDER / path.name)
    if not gone:
        return
    java = start()
    merging = java("org.apache.lucene.index.TieredMergePolicy")()
    merging.setForceMergeDeletesPctAllowed(0.0)
    config = java("org.apache.lucene.index.IndexWriterConfig")()
    config.setMergePolicy(merging)
    place = java("java.io.File")(str(folder / FOLDER)).toPath()
    writer = java("org.apache.lucene.index.IndexWriter")(
        java("org.apache.lucene.store.FSDirectory").open(place), config
    )
    writer.deleteDocuments(_named(gone))
    writer.forceMergeDeletes()
    writer.close()


def searcher(folder: Path, name: str) -> Any:
    """One of Anserini's searchers on the Lucene index in an index's folder. Raises DamagedArtifact."""
    java = start()
    try:
        return java(f"io.anserini.search.{name}")(str(folder / FOLDER))
    except Exception as error:  # pyjnius gives one class to everything that Lucene raises
        raise damaged(folder / FOLDER, error) from error


def search(searcher: Any, queries: dict[int, Any], asked: int, depth: int) -> list[list[tuple[str, float]]]:
    """What is found for ``asked`` queries, called by their numbers, each list in the order that an index promises;
    empty for one that is not among ``queries``."""
    if not queries:
        return [[] for _ in range(asked)]
    numbers = java_list(str(number) for number in queries)
    found = searcher.batch_search(java_list(queries.values()), numbers, depth, devices.cores())
    hits = {entry.getKey(): entry.getValue() for entry in found.entrySet().toArray()}
    rows = ([(str(hit.docid), float(hit.score)) for hit in hits.get(str(n)) or ()] for n in range(asked))
    return [sorted(row, key=lambda hit: (-hit[1], hit[0])) for row in rows]


def _named(doc_ids: Collection[str]) -> Any:
    """Lucene's query for documents by their ids."""
    java = start()
    term = java("org.apache.lucene.util.BytesRef")
    terms = java_list(term(doc_id.encode()) for doc_id in sorted(doc_ids))
    return java("org.apache.lucene.search.TermInSetQuery")("id", terms)
