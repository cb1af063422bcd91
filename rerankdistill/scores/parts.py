"""Parquet parts of a score store: written beside, renamed, and then named by the manifest with their checksum."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rerankdistill.artifacts import hash_file
from rerankdistill.errors import DamagedArtifact
from rerankdistill.scores.columns import array, numbers
from rerankdistill.scores.log import KEPT, schema


@dataclass(frozen=True)
class Part:
    """One part, as the manifest names it: the batches it holds, its rows and the hash of its bytes."""

    name: str
    first: int
    last: int
    rows: int
    hash: str

    def record(self) -> dict[str, Any]:
        return asdict(self)


def write(folder: Path, table: pa.Table, first: int, last: int) -> Part:
    """Write rows, sorted by query and document, as the part of the batches ``first`` to ``last``."""
    order = np.lexsort((array(table["doc"]), array(table["query"])))
    table = table.unify_dictionaries().take(numbers(order)).combine_chunks()
    name = f"part-{first:08d}-{last:08d}.parquet"
    staging = folder / f".{name}.part"
    pq.write_table(table, staging, compression="zstd", use_dictionary=["query_id", "doc_id", "query", "doc"])
    with staging.open("rb+") as file:
        os.fsync(file.fileno())
    part = Part(name, first, last, table.num_rows, hash_file(staging))
    staging.replace(folder / name)
    sync_folder(folder)
    return part


def read(folder: Path, part: Part, columns: list[str] | None = None) -> pa.Table:
    """The rows of a part.

    Raises:
        DamagedArtifact: it is not there, or its bytes are not those that were written.
    """
    path = folder / part.name
    lost = f"its {part.rows} pairs (batches {part.first} to {part.last}) will be scored again"
    if not path.is_file():
        raise DamagedArtifact("a part of the scores is missing", where=str(path), fix=f"run score: {lost}")
    if hash_file(path) != part.hash:
        fix = f"delete this file and run score: {lost}; no other score is touched"
        raise DamagedArtifact("a part of the scores is truncated or corrupted", where=str(path), fix=fix)
    with pq.ParquetFile(path, read_dictionary=["query_id", "doc_id"]) as file:
        table: pa.Table = file.read(columns=columns)
    if columns:
        return table
    return table.cast(schema([name for name, (column, _) in KEPT.items() if column in table.column_names]))


def sweep(folder: Path, named: set[str]) -> None:
    """Delete what a killed compaction left: half-written parts, and parts that the manifest does not name."""
    for path in [*folder.glob(".part-*.part"), *folder.glob("part-*.parquet")]:
        if path.name not in named:
            path.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Put the names of a folder's files onto the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
