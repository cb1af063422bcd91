"""TREC's run and qrels formats, as other tools write and read them.

trec_eval ignores the rank column and orders by score, then by doc_id *descending*, after reading scores as 32-bit
floats. So the files written here have strictly decreasing 32-bit scores: every tool sees one ranking, ours. Files that
are read keep their scores as they are, ordered by (-score, doc_id); equal scores stay equal, so that an evaluation
can apply trec_eval's rule.

White space inside an id is percent-encoded on writing (and a percent sign, where it could be taken for such a code) and
decoded on reading.
"""

from __future__ import annotations

import gzip
import math
import os
import re
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast
from urllib.parse import quote, unquote

import numpy as np

from rerankdistill.errors import ArtifactError, DataError, RerankDistillWarning
from rerankdistill.runs.columns import Columns
from rerankdistill.types import FloatArray, Judgement, Run

_TO_ENCODE = re.compile(r"[\s\x00-\x20\x7f-\x9f]|%(?=[0-9A-Fa-f]{2})")

_FIELDS = re.compile(r"[^ \t\r\n\v\f]+")
"""White space as the C tools know it: a no-break space inside an id separates nothing."""


def encode_id(name: str) -> str:
    """An id without white space or control characters; :func:`decode_id` gives the id back."""
    return _TO_ENCODE.sub(lambda found: quote(found[0], safe=""), name)


def decode_id(name: str) -> str:
    """The id that :func:`encode_id` made this of; anything that it cannot have made stays as it is."""
    if "%" not in name:
        return name
    plain = unquote(name, errors="strict") if _is_utf8(name) else name
    return plain if encode_id(plain) == name else name


def write_run(path: Path, run: Run, tag: str | None = None) -> None:
    """Write ``query_id Q0 doc_id rank score tag`` lines, whole or not at all; gzip where the name ends in ``.gz``.

    Args:
        tag: the last column; the run's name where not given.

    Raises:
        DataError: an empty id, or a score that is no finite 32-bit number.
        ArtifactError: the file cannot be written; what was there before is unharmed.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    label = encode_id(tag or run.name) or "run"
    names = [encode_id(name) for name in run.vocabulary]
    try:
        with _open_to_write(part, compressed=path.suffix == ".gz") as file:
            for row, query_id in enumerate(run.query_ids):
                piece = slice(int(run.offsets[row]), int(run.offsets[row + 1]))
                ids = [names[code] for code in run.codes[piece].tolist()]
                if not query_id or "" in ids:
                    raise DataError("an empty id cannot be written in TREC form", where=f"run {run.name!r}")
                scores = strictly_decreasing(run.scores[piece], f"run {run.name!r}, query {query_id!r}")
                file.write(_lines(encode_id(query_id), ids, scores, label))
        part.replace(path)
    except OSError as error:
        fix = "free some space or choose another place; what was there before is unharmed"
        raise ArtifactError(f"could not be written: {error.strerror or error}", where=str(path), fix=fix) from error
    finally:
        part.unlink(missing_ok=True)


def strictly_decreasing(scores: np.ndarray[tuple[int], np.dtype[np.float64]], where: str) -> FloatArray:
    """``[n]`` 32-bit scores, each below the one before and as near to the given (descending) one as that allows."""
    with np.errstate(over="ignore"):
        out: FloatArray = scores.astype(np.float32)
    if not np.isfinite(out).all():
        raise DataError("a score is NaN, infinite or beyond 32 bits", where=where, fix="correct the scorer")
    if len(out) < 2 or (np.diff(out) < 0).all():
        return out
    lowest = np.float32(-np.inf)
    for at in range(1, len(out)):
        if out[at] >= out[at - 1]:
            out[at] = np.nextafter(out[at - 1], lowest)
    return out


def _lines(query_id: str, ids: list[str], scores: FloatArray, label: str) -> bytes:
    pairs = enumerate(zip(ids, scores.tolist(), strict=True), 1)
    return "".join(f"{query_id} Q0 {name} {rank} {score:.9g} {label}\n" for rank, (name, score) in pairs).encode()


def read_run(path: Path, name: str | None = None) -> Run:
    """Read a TREC run, plain or gzip.

    Args:
        name: of the run; where not given, the first line's tag.

    Raises:
        DataError: says the file and line: not six columns, a score that is no number, a document twice for a query,
            not UTF-8, a broken gzip stream, no such file.
    """
    found: dict[str, dict[str, float]] = {}
    tag = ""
    for place, line in _read_lines(path):
        columns = _FIELDS.findall(line)
        if len(columns) != 6:
            what = f"{len(columns)} columns, not the six of a run: query_id Q0 doc_id rank score tag"
            raise DataError(what, where=place)
        query_id, _, doc_id, _, score, last = columns
        tag = tag or decode_id(last)
        hits = found.setdefault(decode_id(query_id), {})
        doc_id = decode_id(doc_id)
        if doc_id in hits:
            raise DataError(f"document {doc_id!r} is listed twice for query {query_id!r}", where=place)
        hits[doc_id] = _number(score, place)
    if not found:
        warnings.warn(f"{path}: this run is empty", RerankDistillWarning, stacklevel=2)
    columns_of = Columns(name or tag or path.name.split(".")[0])
    while found:  # put away one query after the other, so that both forms are never whole in memory
        query_id = next(iter(found))
        columns_of.add(query_id, found.pop(query_id).items())
    return columns_of.run()


def read_qrels(path: Path) -> list[Judgement]:
    """Read judgements: TREC's four columns ``query_id iteration doc_id grade``, or BEIR's three with a header line.

    Lines that begin with ``#`` are comments. A pair that is judged twice alike counts once, with a warning.

    Raises:
        DataError: says the file and line: another number of columns, a grade that is no integer, a pair judged twice
            with different grades, not UTF-8, a broken gzip stream, no judgements, no such file.
    """
    found: dict[tuple[str, str], int] = {}
    twice, beir = 0, False
    for position, (place, line) in enumerate(_read_lines(path, comments=True)):
        columns = line.split("\t") if beir else _FIELDS.findall(line)
        if position == 0 and len(columns) == 3 and not _is_integer(columns[2]):
            beir = True
            continue
        if len(columns) != (3 if beir else 4):
            wanted = "BEIR's three: query_id, doc_id, grade" if beir else "TREC's four: query_id iteration doc_id grade"
            fix = "" if beir else "three columns need a header line: query-id, corpus-id, score, separated by tabs"
            raise DataError(f"{len(columns)} columns, not {wanted}", where=place, fix=fix)
        if not _is_integer(columns[-1]):
            raise DataError(f"the grade {columns[-1]!r} is no integer", where=place)
        clean = str.strip if beir else decode_id
        pair, grade = (clean(columns[0]), clean(columns[-2])), int(columns[-1])
        if found.setdefault(pair, grade) != grade:
            what = f"query {pair[0]!r}, document {pair[1]!r}: judged {found[pair]} before and {grade} here"
            raise DataError(what, where=place)
        twice += 1
    if not found:
        raise DataError("no judgements in this file", where=str(path))
    if twice > len(found):
        warnings.warn(f"{path}: {twice - len(found)} judgements are repeated", RerankDistillWarning, stacklevel=2)
    return [Judgement(query_id, doc_id, grade) for (query_id, doc_id), grade in found.items()]


def _read_lines(path: Path, *, comments: bool = False) -> Iterator[tuple[str, str]]:
    """(``path:number``, line) of every line that is not blank. Opens by content, so a misnamed gzip is read too."""
    number = 0
    try:
        with path.open("rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            if not packed and path.suffix == ".gz":
                raise DataError("the name ends in .gz and the content is not gzip", where=str(path))
            lines = gzip.GzipFile(fileobj=raw) if packed else raw
            for number, line in enumerate(lines, 1):
                text = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
                if text.strip() and not (comments and text.startswith(b"#")):
                    yield f"{path}:{number}", text.decode().rstrip("\r\n")
    except UnicodeDecodeError as error:
        where = f"{path}:{number}"
        raise DataError(f"not UTF-8 (byte {error.start} of the line)", where=where, fix="save it as UTF-8") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        what = f"the gzip stream is broken after line {number}: {error}"
        raise DataError(what, where=str(path), fix="fetch or write the file again") from error
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}", where=str(path)) from error


def _number(text: str, place: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if math.isnan(value):
        raise DataError(f"the score {text!r} is no number", where=place)
    return value


def _is_integer(text: str) -> bool:
    return re.fullmatch(r"\s*[+-]?\d+\s*", text) is not None


def _is_utf8(name: str) -> bool:
    try:
        unquote(name, errors="strict")
    except UnicodeDecodeError:
        return False
    return True


@contextmanager
def _open_to_write(path: Path, *, compressed: bool) -> Iterator[IO[bytes]]:
    """gzip without name and time, so that equal runs are equal files."""
    with path.open("wb") as raw:
        if not compressed:
            yield raw
            return
        with gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0, compresslevel=6) as packed:
            yield cast(IO[bytes], packed)
