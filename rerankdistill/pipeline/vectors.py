"""Vectors of many texts by one model, encoded in shards so that a killed run loses one shard at most."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rerankdistill import artifacts
from rerankdistill.contracts import Role, Source
from rerankdistill.encoding import TextEncoder
from rerankdistill.pipeline.kept import MARK, encode_queries, known_docs, text_mark
from rerankdistill.pipeline.step import Step
from rerankdistill.pipeline.workspace import Workspace
from rerankdistill.runs.rerank import ScoreGroups, by_similarity, by_vectors
from rerankdistill.students.readings import Way
from rerankdistill.types import FloatArray, IntArray, View

SHARD = 1024
BLOCK = 65536


@dataclass(frozen=True)
class Narrow:
    """How a model's vectors are read, of which less than the whole is kept."""

    way: Way
    cosine: bool

    def __call__(self, vectors: FloatArray, role: Role) -> FloatArray:
        """``[n, d']`` of ``[n, d]``; of few bits the floats that they stand for."""
        import torch

        given = torch.tensor(vectors, dtype=torch.float32)
        if self.way.bits == "binary":  # a bit says nothing of a length
            given = torch.nn.functional.normalize(given, dim=-1)
        found: FloatArray = self.way.narrowed(given, self.cosine, role == "doc").numpy()
        return found


@dataclass(frozen=True)
class Model:
    """A bi-encoder as steps know it: before it exists, by the fingerprint of what makes it."""

    name: str
    reference: str
    mark: str
    query_tokens: int
    doc_tokens: int
    needs: tuple[Step, ...] = ()
    docs: Model | None = None
    """Who reads the documents, where that is another model."""
    revision: str | None = None
    narrow: Narrow | None = None
    whole: Model | None = None
    """With ``narrow``: the same model with whole vectors."""

    @property
    def reader(self) -> Model:
        """Whose vectors the documents have."""
        return self.docs or self

    def encode(self, ws: Workspace, texts: Sequence[str], role: Role, advance: Callable[[int], None]) -> FloatArray:
        vectors = self.open(ws).encode(texts, role, advance)
        return self.narrow(vectors, role) if self.narrow else vectors

    def encode_queries(self, ws: Workspace, texts: Sequence[str]) -> FloatArray:
        """``[n, d]`` of queries; those that a model which is not trained here has met before are not encoded again."""
        if self.needs or self.narrow:
            return self.encode(ws, texts, "query", lambda _: None)
        place = ws.root / "query-vectors" / f"{self.mark}-{self.query_tokens}.npz"
        return encode_queries(place, texts, lambda new: self.encode(ws, new, "query", lambda _: None))

    def vector_bytes(self, dimension: int) -> int:
        """What a document's vector takes, of a model with so many dimensions."""
        return (self.narrow.way if self.narrow else Way()).vector_bytes(dimension)

    def open(self, ws: Workspace) -> TextEncoder:
        """The model, ready to encode."""
        return ws.encoder(self.reference, self.query_tokens, self.doc_tokens, self.revision)


@dataclass(frozen=True)
class Texts:
    """Texts to encode: their name, what decides them, how many, and the texts themselves as ``(id, text)``."""

    name: str
    mark: str
    count: Callable[[], int]
    read: Callable[[], Iterator[tuple[str, str]]]
    role: Role = "doc"
    needs: tuple[Step, ...] = ()


def docs_of(source: Source, view: View, label: str = "docs") -> Texts:
    """Every document of a collection."""
    suffix = "" if view is View.TITLE_TEXT else f"-{view.value}"
    mark = artifacts.fingerprint(source.docs_fingerprint(), view.value)
    return Texts(
        label + suffix,
        mark,
        lambda: len(source.doc_ids()),
        lambda: ((doc.doc_id, doc.view(view)) for doc in source.docs()),
    )


def vectors_step(ws: Workspace, model: Model, texts: Texts) -> Step:
    """``vectors.npy`` ``[n, d]`` float32 and ``ids.parquet`` for texts and a model."""
    model = model.reader if texts.role == "doc" else model
    if model.narrow and model.whole:
        return _narrow_step(ws, model, vectors_step(ws, model.whole, texts), model.narrow, texts)
    about = {"query_tokens": model.query_tokens, "doc_tokens": model.doc_tokens, "role": texts.role}
    manifest = artifacts.plan("vectors", 1, about, {"model": model.mark, "texts": texts.mark})
    place = ws.root / "vectors" / f"{model.name}-{texts.name}"
    step = Step(f"vectors {model.name} · {texts.name}", place, manifest, (*model.needs, *texts.needs))
    step.partial = partial = ws.root / "partial" / f"{step.fingerprint}-{SHARD}"
    step.run = lambda folder: _encode(ws, model, texts, folder, partial, step)
    return step


def _narrow_step(ws: Workspace, model: Model, whole: Step, narrow: Narrow, texts: Texts) -> Step:
    """The step that narrows the vectors of another, a block at a time; each block of ``int8`` has steps of its own."""
    manifest = artifacts.plan("vectors", 1, {"narrowed": model.mark}, {"whole": whole.fingerprint})
    step = Step(f"vectors {model.name} · {texts.name}", ws.root / "vectors" / f"{model.name}-{texts.name}", manifest)
    step.needs = (whole,)

    def run(folder: Path) -> None:
        ids, vectors = read_vectors(whole)
        width = narrow(vectors[:1], texts.role).shape[1]
        out = np.lib.format.open_memmap(folder / "vectors.npy", mode="w+", dtype=np.float32, shape=(len(ids), width))
        for start in range(0, len(ids), BLOCK):
            out[start : start + BLOCK] = narrow(vectors[start : start + BLOCK], texts.role)
        out.flush()
        pq.write_table(pa.table({"id": ids}), folder / "ids.parquet")
        step.manifest.counts = {"texts": len(ids), "dimension": width}

    step.run = run
    return step


def read_vectors(step: Step) -> tuple[list[str], FloatArray]:
    """The ids and the (memory-mapped) vectors that a step wrote."""
    folder = step.require()
    ids: list[str] = pq.read_table(folder / "ids.parquet")["id"].to_pylist()
    return ids, np.load(folder / "vectors.npy", mmap_mode="r")


def by_id(step: Step) -> Callable[[Sequence[str]], FloatArray]:
    """``doc_ids -> [n, d]`` over the vectors that a step wrote."""
    ids, vectors = read_vectors(step)
    rows = {doc_id: row for row, doc_id in enumerate(ids)}
    return lambda doc_ids: np.asarray(vectors[[rows[doc_id] for doc_id in doc_ids]])


def by_encoder(encoder: Any, query_ids: Sequence[str], queries: Any, doc_ids: Sequence[str], docs: Any) -> ScoreGroups:
    """What an encoder says of documents, given what it made of them and of the queries."""
    if isinstance(docs, np.ndarray):
        return by_vectors(query_ids, queries, doc_ids, docs)
    return by_similarity(encoder.similarity, query_ids, queries, doc_ids, docs)


class Chained:
    """Several matrices one under the other, read by rows and never joined in memory; in another ``order`` of the rows,
    where one is given."""

    def __init__(self, parts: Sequence[FloatArray], order: IntArray | None = None) -> None:
        self._parts, self._order = list(parts), order
        self._ends = np.cumsum([len(part) for part in self._parts])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, rows: Sequence[int] | IntArray) -> FloatArray:
        """``[len(rows), d]``."""
        wanted = np.asarray(rows, np.int64) if self._order is None else self._order[np.asarray(rows, np.int64)]
        out = np.empty((len(wanted), self._parts[0].shape[1]), self._parts[0].dtype)
        parts = np.searchsorted(self._ends, wanted, side="right")
        for part in np.unique(parts):
            here = parts == part
            out[here] = self._parts[part][wanted[here] - self._ends[part]]
        return out


class Joined:
    """Matrices of the same rows side by side, each normalised first and the whole once more."""

    def __init__(self, parts: Sequence[Chained]) -> None:
        self._parts = list(parts)

    def __getitem__(self, rows: Sequence[int] | IntArray) -> FloatArray:
        """``[len(rows), d1 + d2 + …]``."""
        pieces = [part[rows].astype(np.float32) for part in self._parts]
        sides = [piece / np.maximum(np.linalg.norm(piece, axis=1, keepdims=True), 1e-12) for piece in pieces]
        return np.asarray(np.concatenate(sides, axis=1) / len(sides) ** 0.5, np.float32)


Encoding = Callable[[Sequence[str], Callable[[int], None]], Any]
"""Makes vectors of texts, and tells how many it has done."""


def shards(
    ws: Workspace,
    model: Model,
    texts: Texts,
    partial: Path,
    suffix: str,
    write: Callable[[Path, Any], None],
    encode: Encoding | None = None,
) -> tuple[list[str], list[Path]]:
    """Encode texts shard by shard into ``partial``, where those that a killed run left are taken as they are.

    Args:
        encode: what encodes, in the model's place.

    Returns:
        The ids of the texts, and the shards in their order.
    """
    partial.mkdir(parents=True, exist_ok=True)
    ids: list[str] = []
    found: list[Path] = []
    stream = texts.read()
    with ws.notes.bar(f"encoding {texts.name} with {model.name}", texts.count()) as advance:
        while batch := list(islice(stream, SHARD)):
            shard = partial / f"{len(found):06d}{suffix}"
            if shard.exists():
                advance(len(batch))
            else:
                part = partial / f"{shard.stem}.part{suffix}"
                told = [text for _, text in batch]
                write(part, encode(told, advance) if encode else model.encode(ws, told, texts.role, advance))
                part.replace(shard)
            found.append(shard)
            ids.extend(name for name, _ in batch)
    return ids, found


def _encode(ws: Workspace, model: Model, texts: Texts, folder: Path, partial: Path, step: Step) -> None:
    known = known_docs(step)
    marks: list[int] = []

    def read() -> Iterator[tuple[str, str]]:
        for name, text in texts.read():
            marks.append(text_mark(text))
            yield name, text

    def encode(batch: Sequence[str], advance: Callable[[int], None]) -> FloatArray:
        before = known.encoded
        vectors = known.complete(batch, lambda new: model.encode(ws, new, texts.role, advance))
        advance(len(batch) - (known.encoded - before))
        return vectors

    ids, parts = shards(ws, model, replace(texts, read=read), partial, ".npy", np.save, encode)
    first = np.load(parts[0], mmap_mode="r")
    shape = (len(ids), first.shape[1])
    out = np.lib.format.open_memmap(folder / "vectors.npy", mode="w+", dtype=np.float32, shape=shape)
    for number, shard in enumerate(parts):
        rows = np.load(shard)
        out[number * SHARD : number * SHARD + len(rows)] = rows
    out.flush()
    del out
    pq.write_table(pa.table({"id": ids, MARK: pa.array(marks, pa.uint64())}), folder / "ids.parquet")
    step.manifest.counts = {"texts": len(ids), "encoded": known.encoded, "dimension": shape[1]}
