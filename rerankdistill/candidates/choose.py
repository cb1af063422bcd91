"""Which documents a teacher will score for each query: the tops of several runs, merged."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq

from rerankdistill.errors import DamagedArtifact, DataError, MissingArtifact, RerankDistillWarning
from rerankdistill.types import Candidate, Run

NAMES = pa.dictionary(pa.int32(), pa.string())
SCHEMA = pa.schema([("query_id", NAMES), ("doc_id", NAMES), ("rank", pa.int32()), ("source", NAMES)])
PARQUET, TREC = "candidates.parquet", "candidates.trec"


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """Documents to score, by columns.

    Attributes:
        table: ``query_id``, ``doc_id``, ``rank`` (1 is best) and ``source`` (the runs that found it, ``bm25 flat``);
            the rows of one query stand together, in order of rank.
    """

    table: pa.Table

    @classmethod
    def from_rows(cls, rows: Iterable[Candidate]) -> Candidates:
        """Build from rows that stand together by query, in order of rank."""
        columns = list(zip(*rows, strict=True)) or [(), (), (), ()]
        arrays = [pa.array(column, kind.type) for column, kind in zip(columns, SCHEMA, strict=True)]
        return cls(pa.Table.from_arrays(arrays, schema=SCHEMA))

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def rows(self) -> Iterator[Candidate]:
        for batch in self.table.to_batches():
            columns = (column.to_pylist() for column in batch.columns)
            yield from map(Candidate._make, zip(*columns, strict=True))

    def groups(self) -> Iterator[tuple[str, list[str]]]:
        """``(query_id, doc_ids best first)``, in the order of the queries."""
        query_id, doc_ids = None, list[str]()
        for row in self.rows():
            if row.query_id != query_id:
                if query_id is not None:
                    yield query_id, doc_ids
                query_id, doc_ids = row.query_id, []
            doc_ids.append(row.doc_id)
        if query_id is not None:
            yield query_id, doc_ids

    def query_ids(self) -> list[str]:
        """The queries that have candidates, in order."""
        return [query_id for query_id, _ in self.groups()]

    def to_run(self, name: str = "candidates") -> Run:
        """As a run whose scores count down from the length of each list to 1."""
        return Run.from_hits(name, {q: [(d, float(len(ds) - i)) for i, d in enumerate(ds)] for q, ds in self.groups()})

    def save(self, folder: Path) -> None:
        """Write ``candidates.parquet``, and ``candidates.trec`` for other tools, into a folder."""
        pq.write_table(self.table, folder / PARQUET)
        with (folder / TREC).open("w", encoding="utf-8") as file:
            for query_id, doc_ids in self.groups():
                for rank, doc_id in enumerate(doc_ids, 1):
                    score = len(doc_ids) - rank + 1
                    file.write(f"{escape(query_id)} Q0 {escape(doc_id)} {rank} {score} candidates\n")

    @classmethod
    def open(cls, folder: Path) -> Candidates:
        """Read what :meth:`save` wrote.

        Raises:
            MissingArtifact, DamagedArtifact: not there, or cut short, or not candidates.
        """
        path = folder / PARQUET
        if not path.is_file():
            raise MissingArtifact("no candidates here", where=str(path), fix="run the candidates step first")
        fix = "delete the folder; the next run makes it again"
        try:
            table = pq.read_table(path)
        except (pa.ArrowException, OSError) as error:
            raise DamagedArtifact(f"candidates cannot be read: {error}", where=str(path), fix=fix) from error
        if table.schema.names != SCHEMA.names:
            raise DamagedArtifact(f"these columns are no candidates: {table.schema.names}", where=str(path), fix=fix)
        return cls(table.cast(SCHEMA))


def escape(name: str) -> str:
    """An id without white space, percent-encoded; ``urllib.parse.unquote`` brings it back."""
    return "".join(quote(letter, safe="") if letter.isspace() or letter == "%" else letter for letter in name)


def choose(
    runs: Sequence[Run], depth: int, *, limit: int | None = None, query_ids: Sequence[str] | None = None
) -> Candidates:
    """Merge the top ``depth`` of every run: by the best rank that any run gave, ties by doc_id.

    The result does not depend on the order of the runs. Scores of different runs are never compared.

    Args:
        depth: documents taken of each run, for each query.
        limit: documents kept of the merged list; all where None.
        query_ids: the queries wanted, in this order; those of the runs where None.

    Raises:
        DataError: no query has a candidate. A warning says which queries have none.
    """
    if depth < 1 or (limit is not None and limit < 1):
        raise DataError("depth and limit must be at least 1", where="candidates")
    names = [run.name for run in runs]
    if len(set(names)) < len(names):
        raise DataError(f"two runs have the same name: {', '.join(names)}", where="candidates", fix="rename one")
    found = [dict(run.top(depth)) for run in runs]
    wanted = list(dict.fromkeys(query_ids if query_ids is not None else (q for lists in found for q in lists)))
    rows: list[Candidate] = []
    empty: list[str] = []
    for query_id in wanted:
        lists = {name: [hit.doc_id for hit in hits.get(query_id, ())] for name, hits in zip(names, found, strict=True)}
        merged = merge(query_id, lists)[:limit]
        rows += merged
        if not merged:
            empty.append(query_id)
    complain(empty, len(wanted))
    return Candidates.from_rows(rows)


def merge(query_id: str, lists: Mapping[str, Sequence[str]]) -> list[Candidate]:
    """One query's candidates from ``{run: doc_ids, best first}``."""
    best: dict[str, int] = {}
    sources: dict[str, list[str]] = {}
    for name, doc_ids in sorted(lists.items()):
        for rank, doc_id in enumerate(doc_ids):
            best[doc_id] = min(rank, best.get(doc_id, rank))
            if name not in sources.setdefault(doc_id, []):
                sources[doc_id].append(name)
    ranked = sorted(best, key=lambda doc_id: (best[doc_id], doc_id))
    return [Candidate(query_id, doc_id, rank, " ".join(sources[doc_id])) for rank, doc_id in enumerate(ranked, 1)]


def complain(empty: Sequence[str], wanted: int) -> None:
    """Warn of queries without candidates. Raises DataError when that is all of them."""
    if len(empty) == wanted:
        fix = "check that runs and queries belong to the same collection"
        raise DataError(f"not one of {wanted} queries has a candidate", where="candidates", fix=fix)
    if empty:
        some = ", ".join(map(repr, empty[:3])) + (", …" if len(empty) > 3 else "")
        what = f"{len(empty)} of {wanted} queries have no candidates and are left out: {some}"
        warnings.warn(what, RerankDistillWarning, stacklevel=3)
