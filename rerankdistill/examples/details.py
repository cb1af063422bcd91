"""What a teacher said of a list beside its scores, as further columns of the examples: preferences and both logits.

A file has such a column only where it was asked for, so that examples of scores alone stay as small as they were.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from rerankdistill.errors import DataError
from rerankdistill.types import FloatArray

PREFERENCES, LOGITS = "preferences", "logits"
PAIR = pa.struct([("first", pa.int32()), ("second", pa.int32()), ("probability", pa.float32())])
COLUMNS: dict[str, pa.Field] = {
    PREFERENCES: pa.field(PREFERENCES, pa.list_(PAIR)),
    LOGITS: pa.field(LOGITS, pa.list_(pa.float32())),
}
"""In the order in which they follow the others. Of preferences only the comparisons that were made are kept; logits are
``n`` times (no, yes)."""


class Said(NamedTuple):
    """Of one query: documents, which may be some of its candidates, and a row of numbers for each."""

    doc_ids: Sequence[str]
    rows: FloatArray


def with_preferences(table: pa.Table, said: Mapping[str, Said]) -> pa.Table:
    """The examples with what was compared: ``rows[i, j]`` is P(document i is better than j), NaN where nobody asked.

    Raises:
        DataError: rows that are not one number for each of the documents; nothing was compared of any list.
    """
    cells: list[list[dict[str, float]]] = []
    for query_id, doc_ids in _lists(table):
        found = said.get(query_id, Said((), np.empty((0, 0), np.float32)))
        if found.rows.shape != (len(found.doc_ids),) * 2:
            what = f"preferences of shape {found.rows.shape} for {len(found.doc_ids)} documents"
            raise DataError(what, where=f"query {query_id!r}", fix="ask for these preferences again")
        place = {doc_id: at for at, doc_id in enumerate(doc_ids)}
        columns = [place.get(doc_id, -1) for doc_id in found.doc_ids]
        known = ~np.isnan(found.rows) & ~np.eye(len(columns), dtype=bool)
        cells.append(
            [
                {"first": columns[i], "second": columns[j], "probability": float(found.rows[i, j])}
                for i, j in zip(*(part.tolist() for part in np.nonzero(known)), strict=True)
                if columns[i] >= 0 and columns[j] >= 0
            ]
        )
    if not any(cells):
        fix = "look at the teacher that compares: rerankdistill teachers check"
        raise DataError("no two documents of any list were compared", where="examples", fix=fix)
    return _append(table, PREFERENCES, cells)


def with_logits(table: pa.Table, said: Mapping[str, Said]) -> pa.Table:
    """The examples with both logits of every document, ``rows [n, 2]`` as (no, yes).

    Raises:
        DataError: logits that do not fit their list.
    """
    cells = []
    for query_id, doc_ids in _lists(table):
        found = said.get(query_id)
        rows = np.full((len(doc_ids), 2), np.nan, np.float32) if found is None else found.rows
        if rows.shape != (len(doc_ids), 2):
            what = f"logits of shape {rows.shape} for {len(doc_ids)} candidates"
            raise DataError(what, where=f"query {query_id!r}", fix="score these candidates again")
        cells.append(np.asarray(rows, np.float32).ravel())
    return _append(table, LOGITS, cells)


def read_preferences(cell: Any, count: int) -> FloatArray:
    """``[n, n]`` of one row of the column."""
    found = np.full((count, count), np.nan, np.float32)
    pairs = cell.values
    if pairs is not None and len(pairs):
        first, second, probability = (np.asarray(pairs.field(name)) for name in ("first", "second", "probability"))
        found[first, second] = probability
    return found


def read_logits(cell: Any, count: int) -> FloatArray:
    """``[n, 2]`` of one row of the column."""
    return np.array(cell.values, np.float32).reshape(count, 2)


def _lists(table: pa.Table) -> Any:
    return zip(table.column("query_id").to_pylist(), table.column("doc_ids").to_pylist(), strict=True)


def _append(table: pa.Table, name: str, cells: Sequence[Any]) -> pa.Table:
    return table.append_column(COLUMNS[name], pa.array(cells, COLUMNS[name].type))
