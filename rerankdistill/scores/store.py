"""The score store: raw scores of one teacher, row by row, append-only, in one folder that survives ``kill -9``.

::

    scores/<teacher>-<fingerprint>/
      manifest.json                        the teacher, and the parts with their checksums; replaced atomically
      part-<first>-<last>.parquet          batches first..last: ids, text hashes, scores, sorted by query and document
      scores.log                           the batches since, each with its checksum
      lock                                 held by the one process that writes

A batch is in the log once its record is whole on the disk. Compaction writes a part, then the manifest that names it,
then empties the log; a log record whose number the manifest has passed is ignored, so that no kill can double or lose
a score. The rows carry ids for joining, but a score belongs to the hashes of its two texts.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa

from rerankdistill import artifacts
from rerankdistill.contracts import Teacher
from rerankdistill.errors import ArtifactError, DamagedArtifact, RerankDistillWarning, StaleArtifact
from rerankdistill.scores import details, log, parts
from rerankdistill.scores.columns import array, ids, numbers
from rerankdistill.scores.lock import WriteLock
from rerankdistill.scores.pairs import GroupKeys, PairIndex, group_keys, pair_keys
from rerankdistill.types import Answer, FloatArray, Group, Scale, View

KIND = "scores"
FORMAT = 1
LOG = "scores.log"
COMPACT_PAIRS = 1_000_000

Batch = Sequence[tuple[Group, FloatArray | Answer]]
"""Groups with what the teacher said of them, ``[len(group.doc_ids)]`` each."""

USAGE = b"usage"
"""In a batch's schema: what it cost, as JSON."""


def store_folder(root: Path, name: str, fingerprint: str) -> Path:
    """Where a teacher's scores lie under the folder of all scores."""
    return root / f"{re.sub(r'[^A-Za-z0-9._+-]', '_', name)}-{fingerprint}"


def open_store(
    root: Path,
    name: str,
    teacher: Teacher,
    *,
    card: Mapping[str, Any] | None = None,
    compact_pairs: int = COMPACT_PAIRS,
) -> ScoreStore:
    """Open a teacher's store for writing, and make it where there is none. Use it as a context manager.

    Args:
        root: the folder of all stores; a teacher with another fingerprint gets another folder in it.
        card: recorded in the manifest.
        compact_pairs: the log is compacted into a part when it holds this many pairs.

    Raises:
        ArtifactError: another process writes this store, or the disk is full.
        StaleArtifact: the folder's manifest names another fingerprint.
        DamagedArtifact: a part or the log cannot be read; says what to delete.
    """
    folder = store_folder(root, name, teacher.fingerprint)
    about = {
        "teacher": name,
        "scale": str(Scale(teacher.scale)),
        "view": str(View(teacher.view)),
        "needs_texts": teacher.needs_texts,
        "unit": getattr(teacher, "unit", "pair"),
        "keeps": sorted(getattr(teacher, "keeps", ())),
        "card": dict(card or {}),
    }
    wanted = artifacts.Manifest(KIND, FORMAT, teacher.fingerprint, about, counts=_empty_counts())
    with _disk(folder):
        folder.mkdir(parents=True, exist_ok=True)
        held = WriteLock(folder)
    try:
        with _disk(folder):
            manifest = _adopt(folder, wanted)
            parts.sweep(folder, {part.name for part in parts_of(manifest)})
        return ScoreStore(folder, manifest, held, compact_pairs)
    except BaseException:
        held.release()
        raise


def read_store(folder: Path, fingerprint: str | None = None) -> ScoreStore:
    """Open a store for reading, also while another process writes to it.

    Raises:
        MissingArtifact: there is none.
        StaleArtifact: its scores are of a teacher with another fingerprint than the one asked for.
        DamagedArtifact: see :func:`open_store`.
    """
    for attempt in range(2):
        bytes_of_log = log.read(folder / LOG)  # before the manifest: a batch then is in one of the two, or in both
        manifest = artifacts.read(folder, KIND)
        if fingerprint is not None:
            _same_teacher(folder, manifest, fingerprint)
        try:
            return ScoreStore(folder, manifest, None, COMPACT_PAIRS, bytes_of_log)
        except DamagedArtifact:
            if attempt:
                raise  # so it was not merely compacted under our hands
    raise AssertionError("unreachable")


class ScoreStore:
    """One teacher's scores. Open it with :func:`open_store` or :func:`read_store`.

    Attributes:
        folder: where it lies.
        fingerprint, scale, view, needs_texts: the teacher's own.
        usage: what its answers have cost so far (tokens, requests, malformed answers, money).
    """

    def __init__(
        self,
        folder: Path,
        manifest: artifacts.Manifest,
        lock: WriteLock | None,
        compact_pairs: int,
        bytes_of_log: bytes | None = None,
    ) -> None:
        self.folder, self._manifest, self._lock, self._compact_pairs = folder, manifest, lock, compact_pairs
        self.fingerprint = manifest.fingerprint
        self.scale, self.view = Scale(manifest.card["scale"]), View(manifest.card["view"])
        self.needs_texts = bool(manifest.card["needs_texts"])
        self.whole = manifest.card.get("unit", "pair") == "list"
        self.keeps: tuple[str, ...] = tuple(manifest.card.get("keeps", ()))
        self.usage: dict[str, float] = dict(manifest.counts.get("usage", {}))
        self._index = PairIndex()
        self._pending: list[pa.Table] = []
        self._sequence, self._log_end = int(manifest.counts["batches"]), 0
        self._descriptor: int | None = None
        self._load(log.read(folder / LOG) if bytes_of_log is None else bytes_of_log)
        if lock:
            with _disk(folder):
                self._descriptor = os.open(folder / LOG, os.O_RDWR | os.O_CREAT, 0o644)
                os.ftruncate(self._descriptor, self._log_end)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __len__(self) -> int:
        """Pairs that are here, also those for which the teacher had no answer."""
        return len(self._index)

    @property
    def bounds(self) -> tuple[float, float] | None:
        """The lowest and the highest score; None where there is none."""
        return (self._index.low, self._index.high) if self._index.low <= self._index.high else None

    @property
    def pairs_per_second(self) -> float | None:
        """How fast this teacher was, over all that it has scored here; None before its first batch."""
        timed = int(self._manifest.counts["timed_pairs"])
        return timed / self._manifest.seconds if timed and self._manifest.seconds > 0 else None

    def lookup(self, groups: Iterable[Group]) -> list[FloatArray]:
        """For each group ``[len(group.doc_ids)]`` raw scores, NaN where there is none."""
        return [self._index.find(self._keys(group).pairs)[0] for group in groups]

    def answers(self, groups: Sequence[Group]) -> list[Answer]:
        """For each group its scores with the details and traces that were kept (empty where there are none).

        Reads the parts again: details are not held in memory.
        """
        keys, kept = [self._keys(group).pairs for group in groups], details.Kept()
        if self.keeps and keys:
            on_disk = (parts.read(self.folder, part) for part in parts_of(self._manifest))
            kept = details.collect(itertools.chain(on_disk, self._pending), self.keeps, np.concatenate(keys))
        return [details.answer(self._index.find(each)[0], each, kept, self.keeps) for each in keys]

    def _keys(self, group: Group) -> GroupKeys:
        return group_keys(group, self.needs_texts, self.whole)

    def missing(self, groups: Iterable[Group]) -> Iterator[Group]:
        """The groups cut to the pairs that are not here yet; a group with none is left out. A text that comes twice
        in a group is asked for once. A list that is judged as a whole is left out or given whole."""
        for group in groups:
            keys = self._keys(group).pairs
            if self.whole:
                if len(keys) and not self._index.find(keys)[1].all():
                    yield group
                continue
            _, first = np.unique(keys, return_index=True)
            wanted = np.zeros(len(keys), np.bool_)
            wanted[first] = True
            wanted &= ~self._index.find(keys)[1]
            if wanted.any():
                rows = np.flatnonzero(wanted).tolist()
                doc_ids = tuple(group.doc_ids[row] for row in rows)
                yield Group(group.query, doc_ids, tuple(group.texts[row] for row in rows))

    def count_missing(self, groups: Iterable[Group]) -> int:
        """How many pairs are not here yet."""
        return sum(len(group.doc_ids) for group in self.missing(groups))

    def append(self, batch: Batch, seconds: float = 0.0, usage: Mapping[str, float] | None = None) -> int:
        """Take in one batch, whole or not at all; it is on the disk when this returns. Pairs that are here already
        keep their score. Returns the number of new pairs.

        Args:
            seconds: how long the teacher took, for estimates.
            usage: what this batch cost, added to :attr:`usage`.

        Raises:
            ArtifactError: the disk is full, or the store was opened for reading.
        """
        table, keys, scores = self._table(batch)
        if table.num_rows or usage or self._descriptor is None:
            self._write(table, usage or {})
        self._index.add(keys, scores)
        if seconds > 0:
            self._manifest.seconds += seconds
            self._manifest.counts["timed_pairs"] += table.num_rows
        if sum(each.num_rows for each in self._pending) >= self._compact_pairs:
            self.compact()
        return int(table.num_rows)

    def charge(self, usage: Mapping[str, float]) -> None:
        """Put on record what a batch has cost that gave no scores; raises ArtifactError as :meth:`append` does."""
        if usage:
            self._write(self._table(())[0], usage)

    def compact(self) -> None:
        """Move the log into a part, together with the last parts where they are small."""
        if not self._pending or self._descriptor is None:
            return
        kept = parts_of(self._manifest)
        tables, first = list(self._pending), self._manifest.counts["batches"] + 1
        merged: list[parts.Part] = []
        while kept and kept[-1].rows < self._compact_pairs:
            merged.append(kept.pop())
            tables.insert(0, parts.read(self.folder, merged[-1]))
            first = merged[-1].first
        with _disk(self.folder):
            whole = pa.concat_tables([table.replace_schema_metadata(None) for table in tables])
            part = parts.write(self.folder, whole, first, self._sequence)
            counts = {**self._manifest.counts, "batches": self._sequence, "pairs": len(self)}
            if self.usage:
                counts["usage"] = dict(self.usage)
            counts["parts"] = [each.record() for each in (*kept, part)]
            manifest = replace(self._manifest, counts=counts)
            save_manifest(self.folder, manifest)
            self._manifest, self._pending, self._log_end = manifest, [], 0
            os.ftruncate(self._descriptor, 0)
            os.fsync(self._descriptor)
            for old in merged:
                (self.folder / old.name).unlink(missing_ok=True)

    def close(self) -> None:
        """Let another process write."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
        if self._lock:
            self._lock.release()

    def _write(self, table: pa.Table, usage: Mapping[str, float]) -> None:
        """Put the rows of a batch, none perhaps, and its cost into the log."""
        if self._descriptor is None:
            raise ArtifactError("these scores are open for reading only", where=str(self.folder))
        table = table.replace_schema_metadata({USAGE: json.dumps(dict(usage))} if usage else None)
        with _disk(self.folder):
            self._log_end = log.append(self._descriptor, self._log_end, log.encode(self._sequence + 1, table))
        self._sequence += 1
        self._pending.append(table)
        self._charge(table)

    def _load(self, bytes_of_log: bytes) -> None:
        for part in parts_of(self._manifest):
            self._take(parts.read(self.folder, part, ["query", "doc", "score"]))
        try:
            for record in log.records(bytes_of_log):
                self._log_end = record.end
                if record.sequence > self._sequence:
                    self._sequence = record.sequence
                    self._pending.append(record.table)
                    self._take(record.table)
                    self._charge(record.table)
        except DamagedArtifact as error:
            command = f"python -c \"from rerankdistill.scores.repair import repair; repair('{self.folder}')\""
            fix = f"{command} keeps the rest; then run score again"
            raise DamagedArtifact(error.what, where=str(self.folder / LOG), fix=fix) from error
        if not self._pending:
            self._log_end = 0  # all of it is in the parts: a compaction was killed before it emptied the log

    def _take(self, table: pa.Table) -> None:
        self._index.add(pair_keys(array(table["query"]), array(table["doc"])), array(table["score"]))

    def _table(self, batch: Batch) -> tuple[pa.Table, Any, FloatArray]:
        """The new rows of a batch, their pair keys and scores."""
        known = [self._keys(group) for group, _ in batch]
        answers = [said if isinstance(said, Answer) else Answer(said) for _, said in batch]
        sizes = [len(each.docs) for each in known]
        none = [np.empty(0, np.uint64)]
        keys = np.concatenate([each.pairs for each in known] or none)
        docs = np.concatenate([each.docs for each in known] or none)
        queries = np.repeat(np.array([each.query for each in known], np.uint64), sizes)
        scores = np.concatenate([np.asarray(said.scores, np.float32) for said in answers] or [np.empty(0, np.float32)])
        new = np.zeros(len(keys), np.bool_)
        new[np.unique(keys, return_index=True)[1]] = True
        new &= ~self._index.find(keys)[1]
        rows = np.flatnonzero(new)
        query_ids = [group.query.query_id for group, _ in batch for _ in group.doc_ids]
        doc_ids = [doc_id for group, _ in batch for doc_id in group.doc_ids]
        columns = [
            ids([query_ids[row] for row in rows.tolist()]),
            ids([doc_ids[row] for row in rows.tolist()]),
            numbers(queries[rows]),
            numbers(docs[rows]),
            numbers(scores[rows]),
        ]
        for name in (name for name in log.KEPT if name in self.keeps):
            each: list[Any] = [item for said in answers for item in getattr(said, name)]
            columns.append(pa.array([each[row] for row in rows.tolist()], log.KEPT[name][1]))
        return pa.Table.from_arrays(columns, schema=log.schema(self.keeps)), keys[rows], scores[rows]

    def _charge(self, table: pa.Table) -> None:
        for name, amount in json.loads((table.schema.metadata or {}).get(USAGE, b"{}")).items():
            self.usage[name] = self.usage.get(name, 0) + amount


def _empty_counts() -> dict[str, Any]:
    return {"pairs": 0, "batches": 0, "timed_pairs": 0, "parts": []}


def parts_of(manifest: artifacts.Manifest) -> list[parts.Part]:
    return [parts.Part(**part) for part in manifest.counts["parts"]]


def save_manifest(folder: Path, manifest: artifacts.Manifest) -> None:
    artifacts.write_text(folder / artifacts.MANIFEST, json.dumps(asdict(manifest), indent=1, sort_keys=True))
    parts.sync_folder(folder)


def _adopt(folder: Path, wanted: artifacts.Manifest) -> artifacts.Manifest:
    """The manifest of a folder that is to be written; forgets parts that somebody deleted, and says so."""
    if not (folder / artifacts.MANIFEST).exists():
        if any(folder.glob("part-*.parquet")):
            fix = "put the manifest back, or move the folder away and score again"
            raise DamagedArtifact("there are scores here, but no manifest", where=str(folder), fix=fix)
        wanted.versions = artifacts.versions()
        save_manifest(folder, wanted)
        return wanted
    found = artifacts.read(folder, KIND)
    _same_teacher(folder, found, wanted.fingerprint)
    there = [part for part in parts_of(found) if (folder / part.name).is_file()]
    gone = [part for part in parts_of(found) if part not in there]
    if gone:
        lost = sum(part.rows for part in gone)
        message = f"{folder}: {len(gone)} part(s) were deleted; their {lost} pairs will be scored again"
        warnings.warn(message, RerankDistillWarning, stacklevel=3)
        found.counts["parts"] = [part.record() for part in there]
        save_manifest(folder, found)
    return found


def _same_teacher(folder: Path, found: artifacts.Manifest, fingerprint: str) -> None:
    if found.fingerprint != fingerprint or found.format != FORMAT:
        what = f"these scores are of a teacher with fingerprint {found.fingerprint}, not {fingerprint}"
        if found.format != FORMAT:
            what = f"these scores are in format {found.format}, not {FORMAT}"
        raise StaleArtifact(what, where=str(folder), fix="score again with this teacher; move this folder away")


@contextmanager
def _disk(folder: Path) -> Iterator[None]:
    """Turn a file system's refusal into an error that says what it is safe to do."""
    try:
        yield
    except OSError as error:
        raise ArtifactError(
            f"the scores could not be written: {error.strerror or error}",
            where=str(folder),
            fix="free some space and run score again; every batch before this one is kept",
        ) from error
