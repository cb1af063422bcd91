"""Files of records, one document each: JSON lines, CSV, TSV, parquet. Columns are known by their usual names."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rerankdistill.collections.reading.decoding import decode
from rerankdistill.collections.reading.parts import Section, Unreadable, squeezed

TEXT = (
    "text", "body", "content", "contents", "passage", "document", "abstract", "description", "answer", "page_content",
)  # fmt: skip
TITLE = ("title", "heading", "name", "subject", "headline", "question")
MARKS = {",": "comma", ";": "semicolon", "\t": "tab"}


def read_file(path: Path) -> Iterator[Section]:
    """One section a record.

    Raises:
        Unreadable: not such a file, or no column that holds text.
    """
    rows = {".parquet": _parquet, ".csv": _table, ".tsv": _table}.get(path.suffix.lower(), _lines)(path)
    known: tuple[str, str] | None = None
    for row in rows:
        if known is None:
            known = columns(row)
        text, title = row.get(known[0]), row.get(known[1])
        if isinstance(text, str) and text.strip():
            blocks = (squeezed(block) for block in text.split("\n\n"))
            yield Section(squeezed(title) if isinstance(title, str) else "", "\n\n".join(filter(None, blocks)))
    if known is None:
        raise Unreadable("it has no records")


def columns(row: Mapping[str, Any]) -> tuple[str, str]:
    """The columns that hold text and title (empty: none): by their names, else the one with the longest text."""
    lower = {str(name).strip().lower(): name for name in row}
    text = next((lower[name] for name in TEXT if name in lower), None)
    title = next((lower[name] for name in TITLE if name in lower and lower[name] != text), "")
    if text is None:
        lengths = {name: len(value) for name, value in row.items() if isinstance(value, str) and name != title}
        if not lengths:
            raise Unreadable(f"no column holds text (columns: {', '.join(map(str, row)) or 'none'})")
        text = max(lengths, key=lambda name: lengths[name])
    return text, title


def _lines(path: Path) -> Iterator[Mapping[str, Any]]:
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            if not raw.strip():
                continue
            try:
                row = json.loads(raw.decode("utf-8-sig"))
            except ValueError as error:
                raise Unreadable(f"line {number} is no JSON") from error
            if not isinstance(row, dict):
                raise Unreadable(f"line {number} is no JSON object")
            yield row


def _table(path: Path) -> Iterator[Mapping[str, Any]]:
    text = decode(path).text
    csv.field_size_limit(2**31 - 1)
    first = text[:10_000].split("\n", 1)[0]
    mark = "\t" if path.suffix.lower() == ".tsv" else max(MARKS, key=first.count)
    try:
        yield from _named(csv.DictReader(text.splitlines(keepends=True), delimiter=mark))
    except csv.Error as error:
        raise Unreadable(f"the table is damaged: {error}") from error


def _named(rows: Iterable[Mapping[Any, Any]]) -> Iterator[Mapping[str, Any]]:
    for row in rows:
        yield {name: value for name, value in row.items() if name is not None}


def _parquet(path: Path) -> Iterator[Mapping[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        for batch in pq.ParquetFile(path).iter_batches(1024):
            yield from batch.to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise Unreadable("the parquet file is damaged") from error
