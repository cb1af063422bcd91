"""PDF, by pypdf: one section a page; a scan has no words, and is said to have none."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path

from rerankdistill.collections.reading.parts import Section, Unreadable, squeezed
from rerankdistill.errors import MissingDependency

BROKEN_WORD = re.compile(r"(\w)-\n(?=[a-z])")
FEWEST_WORDS = 3
"""On a whole document, below which it is taken for a scan."""


def read_file(path: Path) -> Iterator[Section]:
    """The pages of a PDF that hold words.

    Raises:
        Unreadable: encrypted, damaged, or without any words.
        MissingDependency: pypdf is not installed.
    """
    try:
        from pypdf import PdfReader
        from pypdf.errors import PyPdfError
    except ImportError as error:
        raise MissingDependency("PDFs are read by pypdf", fix="pip install 'rerankdistill[adapt]'") from error
    logging.getLogger("pypdf").setLevel(logging.ERROR)  # it tells of every oddity of every file
    pages: list[Section] = []
    try:
        reader = PdfReader(str(path))
        if reader.is_encrypted and not reader.decrypt(""):
            raise Unreadable("it is encrypted")
        title = squeezed(str((reader.metadata and reader.metadata.title) or "")) or path.stem
        for page in reader.pages:
            text = BROKEN_WORD.sub(r"\1", page.extract_text() or "")
            blocks = [squeezed(block) for block in re.split(r"\n\s*\n", text)]
            pages.append(Section(title, "\n\n".join(filter(None, blocks))))
    except Unreadable:
        raise
    except (PyPdfError, ValueError, KeyError, TypeError, AttributeError, IndexError, OSError, RecursionError) as error:
        raise Unreadable(f"the PDF is damaged ({type(error).__name__})") from error
    if sum(len(page.text.split()) for page in pages) < FEWEST_WORDS:
        raise Unreadable("the PDF has no text; it may be a scan")
    yield from (page for page in pages if page.text)
