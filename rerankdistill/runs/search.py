"""Search an index with many queries: the run of a first stage."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from rerankdistill.contracts import Index
from rerankdistill.errors import DataError, UsageError
from rerankdistill.representations import count
from rerankdistill.runs.columns import Columns
from rerankdistill.types import Query, Run

BATCH = 256
"""Queries searched at a time: between two batches only columns stay in memory."""


def search(
    name: str,
    index: Index,
    queries: Sequence[Query],
    content: Any,
    depth: int = 1000,
    progress: Callable[[int], None] | None = None,
    batch: int = BATCH,
) -> Run:
    """Search every query; one that finds nothing keeps an empty list.

    Args:
        content: what the index ``accepts``, one for each query in their order: texts, or rows that can be sliced.
        depth: the most documents a query.
        progress: told the number of queries done since it was last told.

    Raises:
        DataError: another number of contents than queries, or a query id twice.
        UsageError: a depth below 1.
    """
    if depth < 1:
        raise UsageError(f"a depth of {depth} finds nothing", fix="give a depth of at least 1")
    if count(content) != len(queries):
        raise DataError(f"{count(content)} {index.accepts} for {len(queries)} queries", where=f"run {name!r}")
    columns = Columns(name)
    for at in range(0, len(queries), batch):
        part = queries[at : at + batch]
        for query, hits in zip(part, index.search(content[at : at + batch], depth), strict=True):
            columns.add(query.query_id, hits, depth)
        if progress:
            progress(len(part))
    return columns.run()
