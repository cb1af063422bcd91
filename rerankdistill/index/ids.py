"""The document ids of an index, in the order of its rows, and the order of ids that breaks ties."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from rerankdistill.errors import DamagedArtifact, DataError
from rerankdistill.types import FloatArray, IntArray

FILE = "doc_ids.arrow"


@dataclass(frozen=True, slots=True)
class DocIds:
    """``names[row]`` is the id of an index's row; ``places[row]`` its place among all ids in alphabetical order.

    ``dead``: rows, ascending, whose documents were deleted or replaced, of an index that cannot let go of them.
    """

    names: list[str]
    places: IntArray
    dead: IntArray = field(default_factory=lambda: np.empty(0, np.int64))

    def __len__(self) -> int:
        return len(self.names)

    @property
    def alive(self) -> list[str]:
        """The ids of the documents that can be found."""
        dead = set(self.dead.tolist())
        return [name for row, name in enumerate(self.names) if row not in dead] if dead else self.names

    def rows(self, gone: Collection[str]) -> IntArray:
        """The rows, ascending, of those of these documents that are there."""
        dead = set(self.dead.tolist())
        found = [row for row, name in enumerate(self.names) if name in gone and row not in dead]
        return np.asarray(found, np.int64)

    def others(self, gone: Collection[str]) -> IntArray:
        """The rows, ascending, of all other documents."""
        return np.setdiff1d(np.arange(len(self)), np.union1d(self.dead, self.rows(gone)), assume_unique=True)

    def after(self, stay: IntArray, new: Sequence[str]) -> list[str]:
        """The ids of an updated index: of the rows that stay (:meth:`others`), in their order, then the new ones."""
        return [*(self.names[row] for row in stay.tolist()), *new]

    def ordered(self, rows: IntArray, scores: FloatArray, depth: int) -> list[tuple[str, float]]:
        """The best ``depth`` of these rows as (doc_id, score), by (-score, doc_id)."""
        order = np.lexsort((self.places[rows], -scores))[:depth]
        names = self.names
        return [(names[row], score) for row, score in zip(rows[order].tolist(), scores[order].tolist(), strict=True)]


def check_ids(doc_ids: Sequence[str]) -> None:
    """Raises DataError for no documents at all, an empty id, or an id that two documents share."""
    if not len(doc_ids):
        raise DataError("no documents to index", fix="check the collection: its corpus is empty")
    if len(set(doc_ids)) < len(doc_ids):
        twice = [name for name, count in Counter(doc_ids).items() if count > 1]
        raise DataError(
            f"{len(twice)} doc_ids occur more than once, the first: {twice[0]!r}", fix="give every document its own id"
        )
    if "" in set(doc_ids):
        raise DataError(f"document {list(doc_ids).index('') + 1} has an empty doc_id", fix="give every document an id")


def save_ids(folder: Path, doc_ids: Sequence[str], dead: IntArray | None = None) -> None:
    """Write the ids and their alphabetical order (by code points, as Python compares) to ``doc_ids.arrow``."""
    import pyarrow as pa
    import pyarrow.compute as pc

    names = pa.array(doc_ids, pa.large_string())
    places = np.empty(len(doc_ids), np.int64)
    places[pc.sort_indices(names).to_numpy()] = np.arange(len(doc_ids))
    table = pa.table({"doc_id": names, "place": places})
    if dead is not None and len(dead):
        table = table.append_column("alive", pa.array(~np.isin(np.arange(len(doc_ids)), dead)))
    with pa.OSFile(str(folder / FILE), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


def open_ids(folder: Path) -> DocIds:
    """Read what :func:`save_ids` wrote. Raises DamagedArtifact."""
    import pyarrow as pa

    try:
        with pa.OSFile(str(folder / FILE), "rb") as source:
            table = pa.ipc.open_file(source).read_all()
        names, places = table["doc_id"].to_pylist(), table["place"].to_numpy().astype(np.int64)
        if "alive" not in table.column_names:
            return DocIds(names, places)
        return DocIds(names, places, np.flatnonzero(~table["alive"].to_numpy()))
    except (OSError, pa.ArrowException, KeyError) as error:
        raise damaged(folder / FILE, error) from error


def damaged(path: Path, error: Exception) -> DamagedArtifact:
    """The error for a part of an index that is missing or cannot be read."""
    first = (str(error).strip().splitlines() or [type(error).__name__])[0]
    fix = "delete the index; the next run builds it again"
    return DamagedArtifact(f"this part of the index cannot be read: {first}", where=str(path), fix=fix)
