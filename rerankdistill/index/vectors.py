"""What the faiss kinds share: checks of vectors, devices, files, and scores that do not depend on the batch.

faiss proposes rows; their scores are then computed again from the stored vectors in float64. A matrix library adds up
in an order that depends on the batch, so that twins in a collection get scores a bit apart, and one query alone gets
other scores than in company. Computed again, equal vectors tie exactly and every tie is broken by doc_id.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from rerankdistill.codebooks import load_faiss as load_faiss
from rerankdistill.errors import DataError, MissingDependency, UsageError
from rerankdistill.index.ids import DocIds, check_ids, damaged, open_ids, save_ids
from rerankdistill.kinds import INSTALLS
from rerankdistill.types import FloatArray, IntArray

FILE = "index.faiss"
BITS = b"IB"
"""How faiss's files of indexes of bits begin."""
BLOCK = 65536
"""Rows checked and added at a time, so that a memory-mapped matrix is never copied whole."""
SLACK = 16
"""Rows fetched beyond the depth, among which ties at the cut are resolved."""
NEAR = 1e-5
"""Relative error of a float32 dot product: rows this near to the cut may belong to either side of it."""


class Rows(Protocol):
    """A matrix of which rows are read."""

    def __getitem__(self, rows: IntArray, /) -> FloatArray: ...


class Part:
    """Some rows of a matrix, read when they are asked for."""

    def __init__(self, matrix: Any, rows: IntArray) -> None:
        self._matrix, self._rows = matrix, rows
        self.shape = (len(rows), int(matrix.shape[1]))

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, at: slice) -> FloatArray:
        found: FloatArray = self._matrix[self._rows[at]]
        return found


Propose = Callable[[FloatArray, int], tuple[FloatArray, IntArray]]
"""(queries ``[q, d]``, k) to faiss's (scores, rows) ``[q, k]``, best first; -1 where there is none."""


def gpu_number(device: str) -> int | None:
    """The GPU that faiss is to use, or None for the CPU. ``auto``: the first GPU, where this faiss sees one.

    Raises:
        MissingDependency: ``cuda`` was asked for, and this faiss has no GPU support or sees no GPU.
        UsageError: no such device.
    """
    name, _, number = device.partition(":")
    if name not in {"auto", "cpu", "cuda"} or (number and not number.isdigit()):
        raise UsageError(f"no such device: {device!r}", fix="auto, cpu, cuda or cuda:N")
    if name == "cpu":
        return None
    faiss = load_faiss()
    count = faiss.get_num_gpus() if hasattr(faiss, "StandardGpuResources") else 0
    if count > int(number or 0):
        return int(number or 0)
    if name == "auto":
        return None
    what = "the installed faiss has no GPU support" if not count else f"faiss sees {count} GPU(s)"
    fix = f"use device = 'cpu'; or {INSTALLS['faiss']}"
    raise MissingDependency(what, where=f"device {device!r}", fix=fix)


def check_vectors(vectors: Any, doc_ids: Sequence[str]) -> None:
    """Raises DataError: not a matrix, another number of rows than ids, or a row with a NaN or an infinity."""
    shape: tuple[int, ...] = tuple(getattr(vectors, "shape", ()))
    if len(shape) != 2 or shape[0] != len(doc_ids) or not shape[1]:
        raise DataError(f"vectors of shape {shape} for {len(doc_ids)} documents", fix="one row per document")
    for start in range(0, len(doc_ids), BLOCK):
        bad = ~np.isfinite(vectors[start : start + BLOCK]).all(axis=1)
        if bad.any():
            name = doc_ids[start + int(bad.argmax())]
            raise DataError(
                f"the vector of document {name!r} holds NaN or infinity",
                fix="encode again in float32; a model trained to NaN cannot be indexed",
            )


def check(doc_ids: Sequence[str], content: Any, device: str) -> None:
    """Raises what a bad device, bad ids or bad vectors deserve, before anything is built."""
    gpu_number(device)
    check_ids(doc_ids)
    check_vectors(content, doc_ids)


def add_all(index: Any, vectors: Any) -> None:
    """Add a matrix to a faiss index in blocks."""
    for start in range(0, len(vectors), BLOCK):
        index.add(np.ascontiguousarray(vectors[start : start + BLOCK], np.float32))


def write_index(index: Any, folder: Path) -> None:
    """Write ``index.faiss``: a faiss index of floats or of bits."""
    faiss = load_faiss()
    write = faiss.write_index_binary if isinstance(index, faiss.IndexBinary) else faiss.write_index
    write(index, str(folder / FILE))


def read_faiss(path: Path, flags: int = 0) -> Any:
    """A faiss index of floats or of bits. Raises DamagedArtifact: missing, truncated."""
    faiss = load_faiss()
    try:
        with path.open("rb") as file:
            read = faiss.read_index_binary if file.read(2) == BITS else faiss.read_index
        return read(str(path), flags)
    except (RuntimeError, OSError) as error:
        raise damaged(path, error) from error


def read_index(folder: Path, ids: DocIds) -> Any:
    """Raises DamagedArtifact: missing, truncated, or of another number of documents."""
    path = folder / FILE
    index = read_faiss(path)
    if index.ntotal != len(ids):
        raise damaged(path, ValueError(f"{index.ntotal} vectors for {len(ids)} doc_ids"))
    return index


def forget(index: Any, rows: IntArray) -> None:
    """Take rows out of a faiss index; those behind them move up, in their order."""
    if not len(rows):
        return
    faiss = load_faiss()
    before = index.ntotal
    index.remove_ids(faiss.IDSelectorBatch(np.ascontiguousarray(rows, np.int64)))
    inner = faiss.downcast_index(index.index) if isinstance(index, faiss.IndexPreTransform) else index
    if not hasattr(inner, "invlists"):
        return
    stays = np.ones(before, bool)
    stays[rows] = False
    moved, lists = np.cumsum(stays) - 1, inner.invlists
    for number in range(inner.nlist):  # an inverted file keeps the numbers that its rows had
        if size := lists.list_size(number):
            numbers = faiss.rev_swig_ptr(lists.get_ids(number), size)
            numbers[:] = moved[numbers]


class Renewed:
    """Kinds whose faiss index can let go of rows, and takes others behind those that stay."""

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
        """See :func:`rerankdistill.index.update.update_index`."""
        gpu_number(device)
        ids = open_ids(source)
        index = read_index(source, ids)
        check_fit(content, doc_ids, index.d)
        forget(index, ids.rows(gone))
        add_all(index, content)
        write_index(index, folder)
        save_ids(folder, ids.after(ids.others(gone), doc_ids))


def living(ids: DocIds, first: int = 0, end: int | None = None) -> Any:
    """A faiss selector of the documents from row ``first`` to ``end`` that can be found; None where all of them can."""
    end = len(ids) if end is None else end
    dead = ids.dead[(ids.dead >= first) & (ids.dead < end)] - first
    if not len(dead):
        return None
    bits = np.ones(end - first, np.uint8)
    bits[dead] = 0
    return load_faiss().IDSelectorBitmap(np.packbits(bits, bitorder="little"))


def check_fit(content: Any, doc_ids: Sequence[str], dimension: int) -> None:
    """Raises DataError: as :func:`check_vectors`, or vectors of another dimension than the index's."""
    if not len(doc_ids):
        return
    check_vectors(content, doc_ids)
    if content.shape[1] != dimension:
        fix = "encode with the student that filled the index"
        raise DataError(f"vectors of {content.shape[1]} dimensions for an index of {dimension}", fix=fix)


def stored(flat: Any) -> FloatArray:
    """``[n, d]`` view of the vectors inside a flat faiss index; lives as long as the index."""
    faiss = load_faiss()
    pointer: FloatArray = faiss.rev_swig_ptr(flat.get_xb(), flat.ntotal * flat.d)
    return pointer.reshape(flat.ntotal, flat.d)


def check_queries(queries: Any, dimension: int) -> FloatArray:
    """``[q, d]`` float32. Raises DataError: another dimension than the index, NaN or infinity."""
    matrix = np.ascontiguousarray(queries, np.float32)
    if matrix.ndim != 2 or matrix.shape[1] != dimension:
        fix = "search with the encoder that filled the index"
        raise DataError(f"query vectors of shape {matrix.shape}; the index holds {dimension} dimensions", fix=fix)
    bad = ~np.isfinite(matrix).all(axis=1)
    if bad.any():
        raise DataError(f"the vector of query number {int(bad.argmax()) + 1} holds NaN or infinity")
    return matrix


def search(
    propose: Propose, vectors: Rows, ids: DocIds, queries: FloatArray, depth: int, *, widen: bool
) -> list[list[tuple[str, float]]]:
    """Search, score again, and order by (-score, doc_id).

    Args:
        vectors: the vectors that the index holds, read by rows.
        widen: fetch more while the last fetched row could still tie with the cut, so that the answer is exact.
    """
    out: list[list[tuple[str, float]]] = [[] for _ in range(len(queries))]
    pending, fetch = np.arange(len(queries)), min(depth + SLACK, len(ids))
    while len(pending):
        scores, rows = propose(queries[pending], fetch)
        again = []
        for at, query in enumerate(pending.tolist()):
            if widen and fetch < len(ids) and rows[at][-1] >= 0 and _open_cut(scores[at], depth):
                again.append(query)
                continue
            found = rows[at][rows[at] >= 0].astype(np.int64)
            out[query] = ids.ordered(found, _rescore(vectors[found], queries[query]), depth)
        pending, fetch = np.asarray(again, np.int64), min(4 * fetch, len(ids))
    return out


def _open_cut(scores: FloatArray, depth: int) -> bool:
    cut = float(scores[depth - 1])
    return float(scores[-1]) >= cut - NEAR * max(1.0, abs(cut))


def _rescore(block: FloatArray, query: FloatArray) -> FloatArray:
    """``[k]`` dot products, each summed over its own row alone, so that equal rows get equal scores."""
    exact: FloatArray = (block.astype(np.float64) * query.astype(np.float64)).sum(axis=1).astype(np.float32)
    return exact
