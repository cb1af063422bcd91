"""The door of generation: documents, styles and a writer become queries, batch by batch, in a log that resumes.

What was written once is never written again: the log's key is the document's text, the style, the writer and the seed,
so that a document that is added or changed costs its own queries alone.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from rerankdistill.appended import append, replay
from rerankdistill.artifacts import fingerprint
from rerankdistill.errors import DataError
from rerankdistill.queries.styles import StyleCard
from rerankdistill.types import Doc

BATCH = 32


class Request(NamedTuple):
    """One query to be written: the ``number``-th of a style about a document."""

    doc: Doc
    style: StyleCard
    number: int = 0

    @property
    def query_id(self) -> str:
        suffix = f"+{self.number}" if self.number else ""
        return f"{self.style.name}{suffix}:{self.doc.doc_id}"


class Generated(NamedTuple):
    """A query and the document that it was written from."""

    query_id: str
    text: str
    doc_id: str
    style: str


Writer = Callable[[Sequence[Request]], Sequence[str]]
"""What writes queries; an empty text where it has none."""


class Log:
    """Texts by key in a file of JSON lines; each batch is on the disk before the next is begun."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.known: dict[str, str] = {}
        self.seconds_each: float | None = None
        """What a query took to write when this log was last written to; None where nobody has timed it."""
        if path.exists():
            replay(path, self._take, "delete the file; its queries are then written again")
        with suppress(OSError, ValueError):
            self.seconds_each = float(self._pace.read_text("utf-8"))

    @property
    def _pace(self) -> Path:
        return self.path.with_suffix(".pace")

    def timed(self, queries: int, seconds: float) -> None:
        """Take down how long a writer took for so many queries."""
        self.seconds_each = seconds / max(queries, 1)
        self._pace.write_text(f"{self.seconds_each:.6f}", "utf-8")

    def add(self, rows: Iterable[tuple[str, str]]) -> None:
        """Append rows, and wait until they are on the disk."""
        rows = list(rows)
        append(self.path, rows)
        self.known.update(rows)

    def _take(self, row: Any) -> None:
        key, text = row
        self.known[key] = text


def key_of(request: Request, mark: str) -> str:
    """What decides the text of a query, as a short mark; ``mark`` stands for the writer and the seed."""
    doc = request.doc
    style = request.style.model_dump(exclude={"description", "least", "most", "copies"})
    return fingerprint(mark, doc.doc_id, doc.title, doc.text, style, request.number)


def generate(
    requests: Iterable[Request],
    writer: Writer,
    mark: str,
    log: Log,
    progress: Callable[[int], None] | None = None,
    batch: int = BATCH,
) -> Iterator[Generated]:
    """Write what is not yet in the log, and give everything that was asked for, in order; empty texts are left out.

    Args:
        mark: of the writer, its temperature and the seed.
        progress: told the number of queries done since it was last told.

    Raises:
        DataError: the writer gave another number of texts than it was asked for.
    """
    stream, spent, count = iter(requests), 0.0, 0
    while block := list(islice(stream, batch)):
        keys = [key_of(request, mark) for request in block]
        new = [at for at, key in enumerate(keys) if key not in log.known]
        if new:
            began = time.perf_counter()
            texts = list(writer([block[at] for at in new]))
            spent, count = spent + time.perf_counter() - began, count + len(new)
            if len(texts) != len(new):
                raise DataError(f"{len(texts)} queries for {len(new)} requests", where="query writer")
            log.add((keys[at], " ".join(text.split())) for at, text in zip(new, texts, strict=True))
            log.timed(count, spent)
        for request, key in zip(block, keys, strict=True):
            if text := log.known[key]:
                yield Generated(request.query_id, text, request.doc.doc_id, request.style.name)
        if progress:
            progress(len(block))


def requests_for(docs: Sequence[Doc], styles: Sequence[tuple[StyleCard, int]]) -> Iterator[Request]:
    """What to ask: for each style so many queries, spread evenly over the documents; a second query of the same style
    about a document only once every document has had its first.

    Every document has a place on a circle, by its id alone, and every style an arc of it that begins where the one
    before ends. So all documents get about equally many queries, and one that comes or goes changes what is asked
    about hardly any other.
    """
    start = 0.0
    for style, count in styles:
        order = sorted(docs, key=lambda doc: ((_place(doc.doc_id) - start) % 1.0, doc.doc_id))
        for at in range(count):
            number, place = divmod(at, len(docs))
            yield Request(order[place], style, number)
        start = (start + count / len(docs)) % 1.0


def _place(doc_id: str) -> float:
    """By another hash than the one that holds documents out: else the first style would ask about those first."""
    digest = hashlib.sha256(f"asked about {doc_id}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
