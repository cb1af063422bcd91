"""The examples on disk: one parquet file of ids and numbers, no document texts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rerankdistill.errors import DamagedArtifact, MissingArtifact
from rerankdistill.examples import details
from rerankdistill.examples.build import SCHEMA
from rerankdistill.types import Example

FILE = "examples.parquet"


class Examples(Sequence[Example]):
    """Examples read from an Arrow table one at a time, so that millions cost no Python objects."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table
        self._columns = [table.column(name) for name in SCHEMA.names]
        self._more = {name: table.column(name) for name in details.COLUMNS if name in table.column_names}

    @property
    def query_ids(self) -> list[str]:
        ids: list[str] = self.table.column("query_id").to_pylist()
        return ids

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @overload
    def __getitem__(self, row: int) -> Example: ...
    @overload
    def __getitem__(self, row: slice) -> Sequence[Example]: ...
    def __getitem__(self, row: Any) -> Any:
        if isinstance(row, slice):
            return [self[one] for one in range(*row.indices(len(self)))]
        at = range(len(self))[row]  # negative rows count from the end; beyond it is an IndexError
        query_id, query, doc_ids, scores, labels, positive, means, stds, masked = (c[at] for c in self._columns)
        count = len(doc_ids)
        preferences, logits = (self._more.get(name) for name in (details.PREFERENCES, details.LOGITS))
        return Example(
            query_id.as_py(),
            query.as_py(),
            tuple(doc_ids.values.to_pylist()),
            np.array(scores.values, np.float32),
            np.array(labels.values, np.float32),
            positive.as_py(),
            tuple(means.values.to_pylist()),
            tuple(stds.values.to_pylist()),
            tuple(masked.values.to_pylist()),
            None if preferences is None else details.read_preferences(preferences[at], count),
            None if logits is None else details.read_logits(logits[at], count),
        )


def save(folder: Path, table: pa.Table) -> Path:
    """Write the table of :func:`~rerankdistill.examples.build.build_examples` into a folder; returns the file."""
    path = folder / FILE
    pq.write_table(table, path, compression="zstd", row_group_size=16_384)
    return path


def open_examples(folder: Path) -> Examples:
    """Open what :func:`save` wrote.

    Raises:
        MissingArtifact: there is no such file.
        DamagedArtifact: it is cut short, damaged, or has other columns.
    """
    path, fix = folder / FILE, "delete the folder; the next run makes it again"
    if not path.is_file():
        raise MissingArtifact("no examples here", where=str(path), fix="build the examples first")
    try:
        table = pq.read_table(path, memory_map=True)
    except (pa.ArrowException, OSError, ValueError) as error:
        what = f"the examples cannot be read: {str(error).splitlines()[0]}"
        raise DamagedArtifact(what, where=str(path), fix=fix) from error
    known = [*SCHEMA.names, *(name for name in details.COLUMNS if name in table.column_names)]
    if table.column_names != known:
        raise DamagedArtifact(f"columns are {', '.join(table.column_names)}", where=str(path), fix=fix)
    return Examples(table)
