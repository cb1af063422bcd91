"""Word documents, by python-docx: headings make sections, tables are read row by row."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

from rerankdistill.collections.reading.parts import Section, Unreadable, headed, squeezed
from rerankdistill.errors import MissingDependency

LARGEST = 500 * 2**20
"""Bytes that a document may unpack to: a few kilobytes can hold gigabytes of zeros."""
LEVEL = re.compile(r"^heading (\d)$", re.IGNORECASE)


def read_file(path: Path) -> Iterator[Section]:
    """The sections of a Word document.

    Raises:
        Unreadable: damaged, too large once unpacked, or without words.
        MissingDependency: python-docx is not installed.
    """
    try:
        from docx import Document
        from docx.table import Table
    except ImportError as error:
        fix = "pip install 'rerankdistill[adapt]'"
        raise MissingDependency("Word documents are read by python-docx", fix=fix) from error
    try:
        with zipfile.ZipFile(path) as packed:
            size = sum(part.file_size for part in packed.infolist())
        if size > LARGEST:
            raise Unreadable(f"it unpacks to {size // 2**20:,} MB")
        document = Document(str(path))
        blocks = list(document.iter_inner_content())
    except Unreadable:
        raise
    except Exception as error:  # the library raises whatever its XML parser does
        raise Unreadable(f"the Word document is damaged ({type(error).__name__})") from error
    path_of: list[str] = []
    held: list[str] = []
    anything = False
    for block in blocks:
        if isinstance(block, Table):
            held += [squeezed(" ".join(cell.text for cell in row.cells)) for row in block.rows]
            continue
        text = squeezed(block.text)
        style = block.style.name if block.style is not None and block.style.name else ""
        level = 1 if style == "Title" else int(found[1]) if (found := LEVEL.match(style)) else 0
        if not level or not text:
            held.append(text)
            continue
        if any(held):
            anything = True
            yield Section(headed(path_of), "\n\n".join(filter(None, held)))
        held, path_of = [], [*path_of[: level - 1], *[""] * (level - 1 - len(path_of)), text]
    if any(held):
        anything = True
        yield Section(headed(path_of), "\n\n".join(filter(None, held)))
    if not anything:
        raise Unreadable("the Word document has no text")
