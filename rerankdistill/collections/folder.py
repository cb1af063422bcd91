"""A collection in a folder: BEIR's layout, its TSV cousins, and re-ranking collections made of candidate files.

::

    corpus.jsonl | corpus.tsv | docs.… | collection.…        documents; without any, the candidates' own texts
    queries.jsonl | queries.tsv | queries.train.tsv …        queries; without any, the candidates' own
    qrels/<split>.tsv | .trec | .txt | .qrels                judgements; qrels_full.trec in the folder is split ``full``
    candidates.<name>.jsonl                                  runs with text: qid, query, docs: docid, rank, score, text
    runs/<name>.run                                          TREC runs

Every file may be .gz. Documents are held in memory unless their file is uncompressed and above
:data:`~rerankdistill.collections.documents.HOLD_BYTES`: a few million passages fit either way, but uncompressed they
need only ids and offsets.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path

from rerankdistill.artifacts import fingerprint
from rerankdistill.collections import candidate_files, files
from rerankdistill.collections.documents import Documents, Held, open_documents
from rerankdistill.collections.memory import hash_records, no_split
from rerankdistill.errors import DataError, RerankDistillWarning
from rerankdistill.types import Doc, Judgement, Query, Run, View

CORPUS_NAMES = ("corpus", "docs", "documents", "collection")
SAME_SPLIT = {"validation": "dev", "valid": "dev", "val": "dev", "": "test"}
ORDER = ("train", "dev", "test")


class FolderCollection:
    """A :class:`~rerankdistill.contracts.Source` read from a folder.

    Args:
        folder: the folder.
        splits: names the judgements of each split: a file (relative to the folder or its ``qrels/``), or the name of
            a split that the folder has. Exactly these splits are then there.

    Raises:
        DataError: neither documents nor candidates in it, or a named file that is not there. Damaged lines raise
            DataError with file and line when they are first read.
    """

    def __init__(self, folder: Path, splits: Mapping[str, str] | None = None) -> None:
        self.folder, self.name = folder, folder.resolve().name
        self._corpus = _one([path for name in CORPUS_NAMES for path in _files(folder, name, (".jsonl", ".tsv"))])
        self._candidate_files = sorted(_files(folder, "candidates*", (".jsonl",)))
        if self._corpus is None and not self._candidate_files:
            fix = "put the documents into corpus.jsonl, one {_id, title, text} a line, or into corpus.tsv"
            raise DataError("neither documents nor candidates in this folder", where=str(folder), fix=fix)
        if splits:
            self._qrels = {split: _named(folder, name) for split, name in splits.items()}
        else:
            self._qrels = _qrels_files(folder)
        self._judged: dict[str, list[Judgement]] = {}

    @property
    def corpus(self) -> Path | None:
        """The file of the documents; None where the candidates bring their own."""
        return self._corpus

    @cached_property
    def fingerprint(self) -> str:
        parts = [
            (split, self.queries_fingerprint(split), self.judgements_fingerprint(split)) for split in self.splits()
        ]
        runs = [_run_mark(run) for run in self._runs.values()]
        return fingerprint(self.docs_fingerprint(), hash_records(self._queries.values()), parts, runs)

    def docs_fingerprint(self) -> str:
        return self._documents.fingerprint

    def queries_fingerprint(self, split: str) -> str:
        return hash_records(self.queries(split))

    def judgements_fingerprint(self, split: str) -> str:
        return hash_records(self.judgements(split))

    def runs_fingerprint(self, split: str) -> str:
        """Of the candidate lists that come with the folder."""
        return fingerprint(*(_run_mark(run) for run in self.runs(split).values()))

    def docs(self) -> Iterator[Doc]:
        return iter(self._documents)

    def doc_ids(self) -> Sequence[str]:
        return self._documents.ids

    def texts(self, doc_ids: Sequence[str], view: View) -> list[str]:
        found = []
        for doc_id in doc_ids:
            doc = self._documents.find(doc_id)
            if doc is None:
                raise DataError(f"no document is called {doc_id!r}", where=self.name)
            found.append(doc.view(view))
        return found

    def splits(self) -> tuple[str, ...]:
        names = list(self._qrels)
        if not names and any(listed.judgements for listed in self._candidates):
            names = ["test"]
        return tuple(sorted(names, key=lambda name: (ORDER.index(name) if name in ORDER else len(ORDER), name)))

    def queries(self, split: str) -> list[Query]:
        if not self.splits():
            return list(self._queries.values())
        judged = {judgement.query_id for judgement in self.judgements(split)}
        return [query for query_id, query in self._queries.items() if query_id in judged]

    def all_queries(self) -> Iterator[Query]:
        yield from self._queries.values()

    def judgements(self, split: str) -> Iterator[Judgement]:
        if split not in self.splits():
            raise no_split(self.name, split, self.splits())
        if split not in self._judged:
            self._judged[split] = self._read_judgements(split)
        yield from self._judged[split]

    def runs(self, split: str) -> Mapping[str, Run]:
        """Ranked lists by name: ``candidates.<name>.jsonl`` (the documents' texts are there) and ``runs/<name>.run``.

        A TREC run called like a candidate file is offered as ``<name>.run``.
        """
        wanted = [query.query_id for query in self.queries(split)]
        offered = {name: run.restricted(wanted) for name, run in self._runs.items()}
        return {name: run for name, run in offered.items() if len(run)}

    @cached_property
    def _documents(self) -> Documents:
        if self._corpus is not None:
            return open_documents(self._corpus)
        return Held({doc.doc_id: doc for listed in reversed(self._candidates) for doc in listed.docs}.values())

    @cached_property
    def _queries(self) -> dict[str, Query]:
        found: dict[str, Query] = {}
        paths = sorted(_files(self.folder, "queries*", (".jsonl", ".tsv")))
        paths += sorted(_files(self.folder / "queries", "*", (".jsonl", ".tsv")))
        for path in paths:
            rows = files.read_queries(path)
            for query in files.unique(rows, lambda query: query.query_id, "query id"):
                if found.setdefault(query.query_id, query).text != query.text:
                    raise DataError(f"query {query.query_id!r} has another text in another file", where=str(path))
        if not paths:
            found = {query.query_id: query for listed in self._candidates for query in listed.queries}
        if not found:
            fix = "put them into queries.jsonl, one {_id, text} a line, or into queries.tsv"
            raise DataError("no queries", where=str(self.folder), fix=fix)
        return found

    @cached_property
    def _candidates(self) -> list[candidate_files.Listed]:
        return [candidate_files.read(path) for path in self._candidate_files]

    @cached_property
    def _runs(self) -> dict[str, Run]:
        found = {listed.run.name: listed.run for listed in self._candidates}
        for path in sorted(_files(self.folder / "runs", "*", (".run", ".trec", ".txt"))):
            name = files.stem(path)
            name = f"{name}.run" if name in found else name
            found[name] = Run.from_hits(name, files.read_run(path))
        return found

    def _read_judgements(self, split: str) -> list[Judgement]:
        if split not in self._qrels:
            listed = [judgement for listed in self._candidates for judgement in listed.judgements]
            return list({(j.query_id, j.doc_id): j for j in listed}.values())
        path = self._qrels[split]
        found: dict[tuple[str, str], Judgement] = {}
        for place, judgement in files.read_judgements(path):
            before = found.setdefault((judgement.query_id, judgement.doc_id), judgement)
            if before.grade != judgement.grade:
                what = f"query {before.query_id!r} and document {before.doc_id!r} are judged twice, {before.grade} and"
                raise DataError(f"{what} {judgement.grade}", where=place, fix="keep one of the two lines")
        if not found:
            raise DataError("no judgements", where=str(path))
        return self._known(path, found)

    def _known(self, path: Path, found: Mapping[tuple[str, str], Judgement]) -> list[Judgement]:
        """Judgements of unknown queries are left out; those of unknown documents stay, as documents nobody can find."""
        known = set(self._documents.ids)
        judged = list(found.values())
        queries = list(dict.fromkeys(j.query_id for j in judged if j.query_id not in self._queries))
        docs = list(dict.fromkeys(j.doc_id for j in judged if j.doc_id not in known))
        kept = [judgement for judgement in judged if judgement.query_id in self._queries]
        for what, strangers, left in (
            ("query", queries, bool(kept)),
            ("document", docs, len(docs) < len({j.doc_id for j in judged})),
        ):
            if not left:
                fix = f"are these the judgements of another collection? It names {_some(strangers)}"
                raise DataError(f"not one {what} of these judgements is in the collection", where=str(path), fix=fix)
        notes = []
        if queries:
            notes.append(f"{len(queries)} unknown queries ({_some(queries)}), which are left out")
        if docs:
            notes.append(f"{len(docs)} unknown documents ({_some(docs)}), which count but cannot be found")
        if notes:
            warnings.warn(f"{path}: judgements name {'; '.join(notes)}", RerankDistillWarning, stacklevel=5)
        return kept


def _run_mark(run: Run) -> str:
    arrays = (run.offsets.tobytes(), run.codes.tobytes(), run.scores.tobytes())
    return fingerprint(run.name, run.query_ids, run.vocabulary, *arrays)


def _some(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:3])) + (", …" if len(names) > 3 else "")


def _files(folder: Path, pattern: str, suffixes: Sequence[str]) -> list[Path]:
    """Files of these formats, plain or .gz, whose name without them matches."""
    found = (
        path for suffix in suffixes for ending in ("", ".gz") for path in folder.glob(f"{pattern}{suffix}{ending}")
    )
    return [path for path in found if path.is_file()]


def _one(found: Sequence[Path]) -> Path | None:
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        fix = "keep one of them here"
        raise DataError(f"several files could be the documents: {names}", where=str(found[0].parent), fix=fix)
    return found[0] if found else None


def _qrels_files(folder: Path) -> dict[str, Path]:
    """``{split: file}``: ``qrels/<split>.tsv`` and the like, ``qrels.<split>.tsv``, ``qrels_<split>.trec``."""
    suffixes = (".tsv", ".trec", ".txt", ".qrels")
    found: dict[str, Path] = {}
    for path in [*_files(folder / "qrels", "*", suffixes), *_files(folder, "qrels*", suffixes)]:
        name = files.stem(path).removeprefix("qrels").lstrip("._-")
        split = SAME_SPLIT.get(name, name)
        if split in found:
            what = f"two files judge split {split!r}: {found[split].name} and {path.name}"
            fix = f'name the one to use: splits = {{"{split}" = "{path.name}"}}'
            raise DataError(what, where=str(folder), fix=fix)
        found[split] = path
    return found


def _named(folder: Path, name: str) -> Path:
    """The qrels file that a caller named: a path, a file of the folder or of its ``qrels/``, or a split."""
    for path in (folder / name, folder / "qrels" / name):
        if path.is_file():
            return path
    found = _qrels_files(folder)
    if name in found:
        return found[name]
    fix = f"it has: {', '.join(path.name for path in found.values()) or 'none'}"
    raise DataError(f"no judgements are called {name!r}", where=str(folder), fix=fix)
