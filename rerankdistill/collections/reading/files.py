"""Which files lie below a path, in a fixed order; loops, hidden files and files without words are left alone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from rerankdistill.errors import DataError

FORMATS = {
    ".txt": "text", ".text": "text", ".rst": "rst", ".log": "text", ".md": "markdown", ".markdown": "markdown",
    ".html": "html", ".htm": "html", ".xhtml": "html", ".pdf": "pdf", ".docx": "docx", ".jsonl": "records",
    ".ndjson": "records", ".csv": "records", ".tsv": "records", ".parquet": "records",
}  # fmt: skip
"""Suffixes, and the module that reads such a file."""


def find_files(path: Path) -> Iterator[Path]:
    """The files below a folder (or the file itself) whose format is known, sorted by folder and name.

    A symbolic link to a file is read; one to a folder is entered once, whatever points at it. Names that begin with a
    dot are left out.

    Raises:
        DataError: there is no such path.
    """
    if path.is_file():
        yield path
        return
    if not path.is_dir():
        fix = "give a folder of documents, or one file of them"
        raise DataError("no such file or folder", where=str(path), fix=fix)
    entered: set[tuple[int, int]] = set()
    for folder, inside, names in os.walk(path, followlinks=True):
        about = Path(folder).stat()
        if (about.st_dev, about.st_ino) in entered:
            inside.clear()
            continue
        entered.add((about.st_dev, about.st_ino))
        inside[:] = sorted(name for name in inside if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith(".") and Path(name).suffix.lower() in FORMATS:
                yield Path(folder) / name


def format_of(path: Path) -> str:
    """The module that reads a file. Raises DataError for a suffix that nothing reads."""
    found = FORMATS.get(path.suffix.lower())
    if found is None:
        fix = f"give one of {', '.join(sorted(FORMATS))}"
        raise DataError(f"nothing reads files that end with {path.suffix or 'nothing'!r}", where=str(path), fix=fix)
    return found
