"""Candidate files: one query a line with the documents that a first stage found for it, with their text."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from rerankdistill.collections import files
from rerankdistill.errors import DataError
from rerankdistill.types import Doc, Hit, Judgement, Query, Run


@dataclass(frozen=True, slots=True)
class Listed:
    """What one candidate file holds. ``judgements`` are there only where its lines say ``relevance``."""

    run: Run
    queries: list[Query] = field(default_factory=list)
    docs: list[Doc] = field(default_factory=list)
    judgements: list[Judgement] = field(default_factory=list)


def read(path: Path) -> Listed:
    """Read ``{qid, query, docs: [{docid, rank, score, text, relevance?}]}`` lines; the run keeps the file's ranks.

    The run is named after the file without ``candidates.``.

    Raises:
        DataError: a damaged line, a query twice, a document twice for one query, or no query at all.
    """
    ranked: dict[str, list[Hit]] = {}
    queries, docs, judgements = [], dict[str, Doc](), []
    for place, line in files.lines(path):
        record = files.json_object(place, line)
        query = Query(files.field(place, record, "qid", "query_id", "_id"), files.field(place, record, "query", "text"))
        if query.query_id in ranked:
            raise DataError(f"duplicate query id {query.query_id!r}", where=place)
        queries.append(query)
        rows = record.get("docs")
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise DataError("field 'docs' is not a list of objects", where=place)
        hits = _hits(place, rows)
        ranked[query.query_id] = hits
        for row in rows:
            doc_id = files.field(place, row, "docid", "doc_id")
            docs.setdefault(doc_id, Doc(doc_id, files.field(place, row, "text"), str(row.get("title") or "")))
            if row.get("relevance") is not None:
                judgements.append(Judgement(query.query_id, doc_id, _grade(place, row["relevance"])))
    if not queries:
        raise DataError("no queries", where=str(path))
    name = files.stem(path).removeprefix("candidates").lstrip("._-") or "candidates"
    return Listed(Run.from_hits(name, ranked), queries, list(docs.values()), judgements)


def _hits(place: str, rows: list[dict[str, Any]]) -> list[Hit]:
    """In order of ``rank`` (of the list where it has none), with strictly decreasing scores, so that the order stays.

    A score that ties with the one above is lowered by the least that a number can be; where scores rise down the list,
    they cannot be what it was ranked by, and the ranks count down instead.
    """
    ranks = [files.number(place, row.get("rank", index)) for index, row in enumerate(rows, 1)]
    order = sorted(range(len(rows)), key=ranks.__getitem__)
    doc_ids = [files.field(place, rows[index], "docid", "doc_id") for index in order]
    if len(set(doc_ids)) < len(doc_ids):
        twice = next(doc_id for doc_id in doc_ids if doc_ids.count(doc_id) > 1)
        raise DataError(f"document {twice!r} is listed twice for one query", where=place)
    scores = [files.number(place, rows[index].get("score", -rank)) for rank, index in enumerate(order)]
    if any(later > earlier for earlier, later in pairwise(scores)):
        scores = [float(len(order) - rank) for rank in range(len(order))]
    for rank in range(1, len(scores)):
        scores[rank] = min(scores[rank], math.nextafter(scores[rank - 1], -math.inf))
    return [Hit(doc_id, score) for doc_id, score in zip(doc_ids, scores, strict=True)]


def _grade(place: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise DataError(f"relevance {value!r} is not an integer", where=place)
    return max(0, value)
