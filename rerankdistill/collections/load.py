"""The door to collections: the built-in one, a folder, or any ir-datasets id."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from rerankdistill.contracts import Source
from rerankdistill.errors import DataError

BUILT_IN = "pydocs"
SMALLEST = 100
"""Documents of the built-in collection below which a split could lose all its queries."""


def load_collection(name: str, splits: Mapping[str, str] | None = None) -> Source:
    """Open a collection by its name.

    Args:
        name: ``pydocs``, or ``pydocs/2000`` for so many of its documents; the path of a folder; or an ir-datasets id
            or family (``beir/scifact``).
        splits: what ``train``, ``dev`` and ``test`` are, where the collection does not say so itself: for an
            ir-datasets id other ids (``{"test": "msmarco-passage/trec-dl-2019/judged"}``), for a folder names of
            qrels files. Only these splits are then there.

    Raises:
        DataError: no such collection, folder, file or id.
    """
    folder = Path(name).expanduser()
    built_in, _, size = name.partition("/")
    if built_in == BUILT_IN:
        from rerankdistill.collections.pydocs import load_pydocs

        if splits:
            raise DataError("the built-in collection has its own splits", where=name, fix="leave splits out")
        if (size and (not size.isdecimal() or int(size) < SMALLEST)) or name.endswith("/"):
            fix = f"write pydocs, or pydocs/2000 for 2,000 of its documents ({SMALLEST} at least)"
            raise DataError(f"{size!r} is no number of documents", where=name, fix=fix)
        return load_pydocs(int(size or 0))
    if folder.is_dir():
        from rerankdistill.collections.folder import FolderCollection

        return FolderCollection(folder, splits)
    if folder.exists() or name.startswith((".", "/", "~")):
        what = "not a folder" if folder.exists() else "no such folder"
        raise DataError(what, where=name, fix="give the folder that holds corpus.jsonl and queries.jsonl")
    from rerankdistill.collections.irds import IrdsCollection

    return IrdsCollection(name, splits)
