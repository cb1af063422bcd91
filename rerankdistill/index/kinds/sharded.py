"""Vectors in shards on disk, memory-mapped: for collections larger than memory (faiss, ``flat`` or ``ivf`` inside).

One shard is in memory while the index is built; opening it reads the doc_ids, and a search the pages that it needs:
all vectors with ``flat`` (exact), some lists with ``ivf``, which one set of centroids sorts in all shards alike. What
was read stays in the system's cache as long as there is room. An update writes a shard of its own and leaves the others
as they are; what was deleted stays in its shard and is left out of what is found, until half of the shard is such, and
it is written again. On the CPU; ``device`` is checked and has no other effect.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from rerankdistill import artifacts, codebooks
from rerankdistill.cards import Card
from rerankdistill.index import vectors
from rerankdistill.index.ids import DocIds, damaged, open_ids, save_ids
from rerankdistill.types import FloatArray, IntArray

SHARDS, EMPTY, PREFIX = "shards.json", "empty.faiss", "shard-"
WORTH = 0.5
"""The share of a shard that must be living documents for it to be kept."""


class ShardedOptions(Card):
    """The shards.

    Attributes:
        inside: ``flat``: every search reads all vectors; ``ivf``: some lists of them.
        shard: documents a shard.
        nlist, nprobe, train_size, seed: of ``ivf``, see :class:`rerankdistill.index.kinds.ivf.IvfOptions`.
    """

    inside: Literal["flat", "ivf"] = "flat"
    shard: int = Field(default=262_144, ge=1)
    nlist: int = Field(default=0, ge=0)
    nprobe: int = Field(default=0, ge=0)
    train_size: int = Field(default=0, ge=0)
    seed: int = 1


@dataclass(frozen=True)
class Shard:
    """One file: its rows are those of the index from ``first`` to ``end``."""

    path: Path
    index: Any
    first: int
    end: int


class Kind:
    """Keeps the promises of :class:`rerankdistill.contracts.Index`."""

    accepts: Literal["texts", "vectors"] = "vectors"
    mapped = (PREFIX,)
    Options = ShardedOptions

    def __init__(self, shards: list[Shard], ids: DocIds) -> None:
        self.ids, self._shards = ids, shards
        self._dimension = shards[0].index.d
        self._starts = np.asarray([shard.first for shard in shards], np.int64)
        self._effort = [_effort(shard, ids) for shard in shards]

    @classmethod
    def build(
        cls, folder: Path, doc_ids: Sequence[str], content: Any, options: ShardedOptions, device: str = "auto"
    ) -> None:
        """``content``: ``[n, d]``, also memory-mapped, and then never in memory as a whole."""
        vectors.check(doc_ids, content, device)
        faiss = vectors.load_faiss()
        if options.inside == "flat":
            empty = faiss.IndexFlatIP(int(content.shape[1]))
        else:
            nlist = options.nlist or codebooks.lists_for(len(doc_ids))
            empty = codebooks.train_lists(content, nlist, options.seed, options.train_size)
            empty.nprobe = codebooks.probes(nlist, options.nprobe)
        faiss.write_index(empty, str(folder / EMPTY))
        sizes = _fill(folder, content, options.shard, 0)
        _note(folder, sizes, options.shard)
        save_ids(folder, doc_ids)

    @classmethod
    def update(
        cls,
        folder: Path,
        source: Path,
        gone: Collection[str],
        doc_ids: Sequence[str],
        content: Any,
        device: str = "auto",
    ) -> None:
        """See :func:`rerankdistill.index.update.update_index`. Shards that stay are linked, not copied."""
        found = cls.open(source, device)
        vectors.check_fit(content, doc_ids, found._dimension)
        artifacts.link(source / EMPTY, folder / EMPTY)
        size, names = _read(source)[1], found.ids.names
        stay = found.ids.others(gone)
        kept: list[str] = []
        dead: list[IntArray] = []
        sizes: list[int] = []
        for shard in found._shards:
            rows = stay[(stay >= shard.first) & (stay < shard.end)]
            if len(rows) < WORTH * (shard.end - shard.first):
                sizes += _fill(folder, vectors.Part(found, rows), size, len(sizes))
                kept += [names[row] for row in rows]
                continue
            artifacts.link(shard.path, folder / f"{PREFIX}{len(sizes):05}.faiss")
            sizes.append(shard.end - shard.first)
            dead.append(np.setdiff1d(np.arange(shard.first, shard.end), rows) - shard.first + len(kept))
            kept += names[shard.first : shard.end]
        if len(doc_ids):
            sizes += _fill(folder, content, size, len(sizes))
        _note(folder, sizes, size)
        save_ids(folder, [*kept, *doc_ids], np.concatenate([np.empty(0, np.int64), *dead]))

    @classmethod
    def open(cls, folder: Path, device: str = "auto") -> Kind:
        vectors.gpu_number(device)
        ids, faiss = open_ids(folder), vectors.load_faiss()
        ends = np.cumsum(_read(folder)[0])
        if ends[-1] != len(ids):
            raise damaged(folder / SHARDS, ValueError(f"shards of {ends[-1]} vectors for {len(ids)} doc_ids"))
        empty = vectors.read_faiss(folder / EMPTY)
        flags = faiss.IO_FLAG_MMAP if hasattr(empty, "nlist") else faiss.IO_FLAG_MMAP_IFC
        shards = []
        for number, (first, end) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
            path = folder / f"{PREFIX}{number:05}.faiss"
            index = vectors.read_faiss(path, flags)
            if index.ntotal != end - first:
                raise damaged(path, ValueError(f"{index.ntotal} vectors of {end - first}"))
            if hasattr(index, "make_direct_map"):
                index.make_direct_map()  # from a row to its place in a list
            shards.append(Shard(path, index, int(first), int(end)))
        return cls(shards, ids)

    def __getitem__(self, rows: IntArray) -> FloatArray:
        """``[len(rows), d]`` vectors."""
        out = np.empty((len(rows), self._dimension), np.float32)
        owners = np.searchsorted(self._starts, rows, side="right") - 1
        for number in np.unique(owners):
            here, shard = owners == number, self._shards[number]
            out[here] = shard.index.reconstruct_batch(rows[here] - shard.first)
        return out

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.ids), self._dimension

    def search(self, queries: FloatArray, depth: int) -> list[list[tuple[str, float]]]:
        """``[q, d]`` vectors to at most ``depth`` (doc_id, inner product) a query."""
        matrix = vectors.check_queries(queries, self._dimension)
        return vectors.search(self._propose, self, self.ids, matrix, depth, widen=True)

    def _propose(self, queries: FloatArray, fetch: int) -> tuple[FloatArray, IntArray]:
        """The best of every shard, and the best of those."""
        scores, rows = [], []
        for shard, effort in zip(self._shards, self._effort, strict=True):
            found, at = shard.index.search(queries, min(fetch, shard.end - shard.first), params=effort)
            scores.append(np.where(at < 0, -np.inf, found))
            rows.append(np.where(at < 0, -1, at + shard.first))
        every, places = np.concatenate(scores, axis=1), np.concatenate(rows, axis=1)
        order = np.argsort(-every, axis=1, kind="stable")[:, :fetch]
        return np.take_along_axis(every, order, 1), np.take_along_axis(places, order, 1)


def _effort(shard: Shard, ids: DocIds) -> Any:
    """How a shard is searched: as it was built, without what was deleted."""
    living = vectors.living(ids, shard.first, shard.end)
    if living is None:
        return None
    faiss = vectors.load_faiss()
    if hasattr(shard.index, "nprobe"):
        return faiss.SearchParametersIVF(sel=living, nprobe=shard.index.nprobe)
    return faiss.SearchParameters(sel=living)


def _fill(folder: Path, content: Any, size: int, first: int) -> list[int]:
    """Write shards, numbered from ``first``; gives their sizes."""
    faiss = vectors.load_faiss()
    sizes: list[int] = []
    for start in range(0, len(content), size):
        index = faiss.read_index(str(folder / EMPTY))
        end = min(start + size, len(content))
        for at in range(start, end, vectors.BLOCK):
            block = content[at : min(at + vectors.BLOCK, end)]
            index.add(np.ascontiguousarray(block, np.float32))
        faiss.write_index(index, str(folder / f"{PREFIX}{first + len(sizes):05}.faiss"))
        sizes.append(end - start)
    return sizes


def _note(folder: Path, sizes: Sequence[int], size: int) -> None:
    (folder / SHARDS).write_text(json.dumps({"sizes": sizes, "shard": size}), "utf-8")


def _read(folder: Path) -> tuple[list[int], int]:
    """(sizes of the shards, size of a full one). Raises DamagedArtifact."""
    try:
        found = json.loads((folder / SHARDS).read_text("utf-8"))
        return [int(size) for size in found["sizes"]], int(found["shard"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise damaged(folder / SHARDS, error) from error
