"""Reading collection files line by line: plain or .gz, with the line in every complaint."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from rerankdistill.errors import DataError
from rerankdistill.types import Doc, Hit, Judgement, Query

TEXT_KINDS = (".jsonl", ".tsv", ".csv", ".txt", ".trec", ".qrels", ".run")


def stem(path: Path) -> str:
    """The file's name without ``.gz`` and without its format."""
    name = path.name.removesuffix(".gz")
    ending = Path(name).suffix
    return name.removesuffix(ending) if ending in TEXT_KINDS else name


def suffix(path: Path) -> str:
    """The format: the last suffix, not counting ``.gz``."""
    return Path(path.name.removesuffix(".gz")).suffix


def lines(path: Path) -> Iterator[tuple[str, str]]:
    """Yield ``(place, line)`` for every line that is not blank, ``place`` being ``file:line``.

    Raises:
        DataError: no such file, a broken gz, or bytes that are not UTF-8.
    """
    number = 0
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            for number, raw in enumerate(file, 1):
                if raw.strip():
                    text = raw.decode("utf-8-sig" if number == 1 else "utf-8")
                    yield f"{path}:{number}", text.rstrip("\r\n")
    except UnicodeDecodeError as error:
        what = f"byte {error.start + 1} of this line is not UTF-8"
        fix = "convert the file first, e.g. iconv -f latin1 -t utf-8"
        raise DataError(what, where=f"{path}:{number}", fix=fix) from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        what = f"broken gz after line {number}: {error}"
        raise DataError(what, where=str(path), fix="download or compress it again") from error
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}", where=str(path)) from error


def json_object(place: str, line: str) -> dict[str, Any]:
    """One line of a .jsonl file. Raises DataError unless it is a JSON object."""
    try:
        found = json.loads(line)
    except ValueError as error:
        raise DataError(f"not JSON: {error}", where=place) from error
    if not isinstance(found, dict):
        raise DataError(f"expected a JSON object, found {type(found).__name__}", where=place)
    return found


def field(place: str, record: dict[str, Any], *names: str) -> str:
    """The first of these fields that a record has, as text. Numbers are accepted as ids.

    Raises:
        DataError: it has none of them, or an id that is empty or no text.
    """
    for name in names:
        value = record.get(name)
        if isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool)):
            return str(value)
        if value is not None:
            raise DataError(f"field {name!r} is not text", where=place)
    fields = ", ".join(record) or "none"
    raise DataError(f"missing field {names[0]!r}", where=place, fix=f"its fields are: {fields}")


def columns(place: str, line: str, allowed: tuple[int, ...], separator: str | None = "\t") -> list[str]:
    """The columns of a line. Raises DataError unless there are as many as allowed."""
    found = line.split(separator)
    if len(found) not in allowed:
        wanted = " or ".join(str(count) for count in allowed)
        by = "tab-separated" if separator else "space-separated"
        raise DataError(f"expected {wanted} {by} columns, found {len(found)}", where=place)
    return found


def read_doc(path: Path, place: str, line: str) -> Doc:
    """One document: JSON ``_id title text`` (or ``doc_id``, ``id``, ``contents``), or TSV ``id [title] text``."""
    if suffix(path) == ".jsonl":
        record = json_object(place, line)
        title = record.get("title")
        doc_id = field(place, record, "_id", "doc_id", "docid", "id")
        doc = Doc(doc_id, field(place, record, "text", "contents"), title if isinstance(title, str) else "")
    else:
        doc_id, *title_and_text = columns(place, line, (2, 3))
        doc = Doc(doc_id, title_and_text[-1], title_and_text[0] if len(title_and_text) > 1 else "")
    if not doc.doc_id:
        raise DataError("empty document id", where=place)
    return doc


def read_queries(path: Path) -> Iterator[tuple[str, Query]]:
    """Yield ``(place, query)``: JSON ``_id text`` (or ``query_id``, ``qid``, ``id``, ``query``), or TSV ``id text``."""
    for place, line in lines(path):
        if suffix(path) == ".jsonl":
            record = json_object(place, line)
            query_id = field(place, record, "_id", "query_id", "qid", "id")
            query = Query(query_id, field(place, record, "text", "query"))
        else:
            query = Query(*columns(place, line, (2,)))
        if not query.query_id or not query.text.strip():
            raise DataError("a query needs an id and a text", where=place)
        yield place, query


def read_judgements(path: Path) -> Iterator[tuple[str, Judgement]]:
    """Yield ``(place, judgement)`` of TSV ``query doc grade`` or TREC ``query 0 doc grade``.

    A TSV file may begin with a header. The first line decides how many columns there are and whether tabs or spaces
    part them. Grades below 0 (no interest, spam) are read as 0.
    """
    separator: str | None = None
    count = 0
    for place, line in lines(path):
        if not count:
            separator = "\t" if line.count("\t") in (2, 3) else None
            count = len(columns(place, line, (3, 4), separator))
            if place.endswith(":1") and not _is_integer(line.split(separator)[-1]):
                continue
        parts = columns(place, line, (count,), separator)
        if not _is_integer(parts[-1]):
            raise DataError(f"grade {parts[-1]!r} is not an integer", where=place)
        yield place, Judgement(parts[0], parts[-2], max(0, int(parts[-1])))


def read_run(path: Path) -> dict[str, list[Hit]]:
    """A TREC run ``query Q0 doc rank score name``, in the file's order."""
    found: dict[str, list[Hit]] = {}
    for place, line in lines(path):
        query_id, _, doc_id, _, score, *_ = columns(place, line, (6,), None)
        found.setdefault(query_id, []).append(Hit(doc_id, number(place, score)))
    return found


def number(place: str, value: Any) -> float:
    """A finite score. Raises DataError."""
    try:
        score = float(value)
    except (TypeError, ValueError) as error:
        raise DataError(f"score {value!r} is not a number", where=place) from error
    if not abs(score) < float("inf"):
        raise DataError(f"score {value!r} is not finite", where=place)
    return score


def unique(rows: Iterable[tuple[str, Any]], key: Callable[[Any], Any], what: str) -> Iterator[Any]:
    """The records of ``(place, record)``; raises DataError at the second one of the same key."""
    seen: dict[Any, str] = {}
    for place, row in rows:
        first = seen.setdefault(key(row), place)
        if first is not place:
            raise DataError(f"duplicate {what} {key(row)!r}", where=place, fix=f"it stands already in {first}")
        yield row


def _is_integer(value: str) -> bool:
    try:
        int(value)
    except ValueError:
        return False
    return True
