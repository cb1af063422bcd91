"""Votes of people who search, as a collection that ``eval`` and ``adapt`` read.

``votes/log.tsv`` is only ever appended to, a line a vote. What a collection's folder holds is written from it anew,
whole or not at all: ``queries.jsonl``, ``qrels/test.tsv`` with the last vote of each pair, and the documents.
"""

from __future__ import annotations

import os
import time
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from rerankdistill import artifacts
from rerankdistill.collections.write import doc_line, qrels, query_line
from rerankdistill.contracts import Source
from rerankdistill.errors import DataError
from rerankdistill.types import Judgement, Query

FOLDER, LOG, CORPUS = "votes", "log.tsv", "corpus.jsonl"
MOST_DOCUMENTS = 1_000_000
"""A larger collection is not copied for its votes; one that lies in a file is linked all the same."""


class Vote(NamedTuple):
    """One person's word on one document; ``grade`` 0 or 1, -1 takes an earlier vote back."""

    query: str
    doc_id: str
    grade: int
    engine: str = ""


class Votes:
    """The votes of one work folder; several processes may write at once."""

    def __init__(self, root: Path, source: Source) -> None:
        self.folder, self._source = root / FOLDER, source
        self._known = set(source.doc_ids())

    def add(self, vote: Vote) -> int:
        """Write a vote down for good; how many pairs are judged now. Raises DataError: there is no such document."""
        if vote.doc_id not in self._known:
            raise DataError(f"no document is called {vote.doc_id!r}", where=self._source.name)
        text = " ".join(vote.query.split())
        if not text:
            raise DataError("a vote needs a query", where="votes")
        cells = (query_id(text), vote.doc_id, str(vote.grade), str(int(time.time())), vote.engine, text)
        line = "\t".join(" ".join(cell.split()) for cell in cells) + "\n"
        (self.folder / "qrels").mkdir(parents=True, exist_ok=True)
        with artifacts.alone(self.folder / ".lock"):
            self._append(line)
            return self._publish()

    def all(self) -> list[tuple[Query, str, int]]:
        """The last vote of each pair that was not taken back. A line that a killed writer left half is passed over."""
        path = self.folder / LOG
        last: dict[tuple[str, str], tuple[Query, str, int]] = {}
        for line in path.read_text("utf-8", errors="replace").splitlines() if path.is_file() else []:
            cells = line.split("\t")
            if len(cells) == 6 and cells[2] in ("-1", "0", "1"):
                last[cells[0], cells[1]] = (Query(cells[0], cells[5]), cells[1], int(cells[2]))
        return [vote for vote in last.values() if vote[2] >= 0]

    def _append(self, line: str) -> None:
        with (self.folder / LOG).open("ab+") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                line = line if file.read(1) == b"\n" else f"\n{line}"
            file.write(line.encode())
            file.flush()
            os.fsync(file.fileno())

    def _publish(self) -> int:
        votes = self.all()
        queries = {query.query_id: query.text for query, _, _ in votes}
        rows = (query_line(name, text) for name, text in queries.items())
        artifacts.write_text(self.folder / "queries.jsonl", "".join(rows))
        judged = (Judgement(query.query_id, doc_id, grade) for query, doc_id, grade in votes)
        artifacts.write_text(self.folder / "qrels" / "test.tsv", qrels(judged))
        self._documents()
        return len(votes)

    def _documents(self) -> None:
        given: Path | None = getattr(self._source, "corpus", None)
        if any(self.folder.glob("corpus.*")):
            return
        if given is not None:
            try:
                os.link(given, self.folder / f"corpus{''.join(given.suffixes)}")
                return
            except OSError:
                pass  # another disk
        if len(self._known) > MOST_DOCUMENTS:
            return
        part = self.folder / f".{CORPUS}.part"
        with part.open("w", encoding="utf-8") as file:
            file.writelines(map(doc_line, self._source.docs()))
        part.replace(self.folder / CORPUS)


def query_id(text: str) -> str:
    """The id of a query that people typed: the same text has the same."""
    return "v" + sha256(text.lower().encode()).hexdigest()[:12]
