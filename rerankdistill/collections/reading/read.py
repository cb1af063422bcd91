"""The door: a folder or a file of documents becomes passages, each with an id that says where it is from.

Nothing that a single file holds can stop the reading: what cannot be read is passed over, counted, and told with its
reason. A file's passages are numbered in reading order: ``guide/setup.md#3``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import Field

from rerankdistill.cards import Card
from rerankdistill.collections.reading import docx, html, markdown, pdf, records, rst
from rerankdistill.collections.reading import text as plain
from rerankdistill.collections.reading.decoding import decode
from rerankdistill.collections.reading.files import find_files, format_of
from rerankdistill.collections.reading.near import Seen
from rerankdistill.collections.reading.parts import Section, Unreadable
from rerankdistill.collections.reading.passages import passages
from rerankdistill.errors import DataError
from rerankdistill.types import Doc

FILES = {"docx": docx.read_file, "pdf": pdf.read_file, "records": records.read_file}
TEXTS = {"html": html.read, "markdown": markdown.read, "rst": rst.read, "text": plain.read}
"""Readers of files, and of texts that were decoded; each loads its library when it is first used."""


class ReadingOptions(Card):
    """How files become passages."""

    words: int = Field(default=120, ge=20)
    """What a passage is to have; an encoder of 256 tokens reads it whole."""
    least: int = Field(default=8, ge=1)
    """A section with fewer words is read together with the one after it."""
    near: float = Field(default=0.9, ge=0, le=1)
    """A passage that shares this much of its runs of five words with one before it is left out; 0: only equal ones."""
    largest: int = Field(default=64 * 2**20, gt=0)
    """Bytes of a file of text or a PDF above which it is passed over; files of records may be larger."""
    most: int = Field(default=0, ge=0)
    """Stop after so many passages; 0: never."""


@dataclass
class Counts:
    """What was met on the way.

    Attributes:
        files: that gave passages.
        passed: why files were passed over: reason to how many, and the first of them.
        guessed: encodings other than UTF-8 that files were read with, counted.
        duplicates: passages left out because one before them says the same.
    """

    files: int = 0
    passages: int = 0
    words: int = 0
    duplicates: int = 0
    passed: dict[str, tuple[int, str]] = field(default_factory=dict)
    guessed: dict[str, int] = field(default_factory=dict)

    def pass_over(self, why: str, path: str) -> None:
        count, first = self.passed.get(why, (0, path))
        self.passed[why] = (count + 1, first)


def read_documents(
    path: Path, options: ReadingOptions, counts: Counts, progress: Callable[[int], None] | None = None
) -> Iterator[Doc]:
    """Every passage below a path, streamed, in a fixed order; ``counts`` is filled on the way.

    Args:
        progress: told the number of files done since it was last told.

    Raises:
        DataError: there is no such path; nothing below it gives a passage.
        MissingDependency: a file needs a library that is not installed.
    """
    seen = Seen(options.near)
    base = path if path.is_dir() else path.parent
    for file in find_files(path):
        name = file.relative_to(base).as_posix()
        try:
            found = list(passages(_sections(file, options, counts), options.words, options.least))
        except Unreadable as why:
            counts.pass_over(str(why), name)
            found = []
        except OSError as error:
            counts.pass_over(f"it cannot be opened ({error.strerror})", name)
            found = []
        given = 0
        for number, (title, text) in enumerate(found, 1):
            doc_id = f"{name}#{number}"
            if seen.first(doc_id, text) is not None:
                counts.duplicates += 1
                continue
            given += 1
            counts.passages += 1
            counts.words += len(text.split())
            yield Doc(doc_id, text, title)
            if options.most and counts.passages >= options.most:
                counts.files += 1
                return
        counts.files += given > 0
        if progress:
            progress(1)
    if not counts.passages:
        fix = "give txt, md, rst, html, pdf, docx, jsonl, csv or parquet"
        raise DataError(_nothing(counts), where=str(path), fix=fix)


def _nothing(counts: Counts) -> str:
    reasons = "; ".join(f"{many} files: {why} (first: {first})" for why, (many, first) in counts.passed.items())
    return f"no passage was found; {reasons}" if reasons else "no passage was found: no file of a known format"


def _sections(path: Path, options: ReadingOptions, counts: Counts) -> Iterator[Section]:
    kind = format_of(path)
    size = path.stat().st_size
    if not size:
        raise Unreadable("it is empty")
    if size > options.largest and kind != "records":
        raise Unreadable(f"it is larger than {options.largest // 2**20} MB")
    if kind in FILES:
        yield from FILES[kind](path)
        return
    text, guessed = decode(path)
    if guessed:
        counts.guessed[guessed] = counts.guessed.get(guessed, 0) + 1
    title = path.stem.replace("_", " ").replace("-", " ")
    yield from (Section(section.title or title, section.text) for section in TEXTS[kind](text))
