"""What an encoder makes of texts where that is no dense vector: sparse rows over a vocabulary, or a vector a token.

Both are read by rows as a matrix is, so that an index, a file and a comparison need not know which of the two they
have: ``rows[3:7]``, ``rows[[0, 4]]``, :func:`count`, :func:`save`, :func:`load`. Sparse rows are scipy's
``csr_array``; the vectors of tokens are :class:`TokenVectors`, compared by MaxSim (Khattab, Zaharia 2020, ColBERT,
arXiv:2004.12832): the sum over the query's tokens of each one's best match in the document.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rerankdistill.errors import DamagedArtifact, DataError
from rerankdistill.types import FloatArray, IntArray

BLOCK = 4096
"""Tokens of documents that are compared at a time: what a core's own cache holds."""
PIECE = 2**15
"""Numbers that torch converts in the thread that asks: its others would spin afterwards, where numpy's want to run."""
SPARSE, TOKENS, OFFSETS = "rows.npz", "tokens.npy", "offsets.npy"
WORST = -1.0
"""What a query's token gets of a document of which no token takes part: as badly as unit vectors can match."""


class TokenVectors:
    """A vector for each token of several texts: ``vectors [tokens, d]``, those of text ``i`` from ``offsets[i]`` to
    ``offsets[i + 1]``."""

    def __init__(self, vectors: FloatArray, offsets: IntArray) -> None:
        self.vectors, self.offsets = vectors, offsets

    @classmethod
    def of(cls, parts: Sequence[FloatArray], dimension: int) -> TokenVectors:
        """Of one matrix a text."""
        ends = np.cumsum([0, *(len(part) for part in parts)]).astype(np.int64)
        return cls(np.concatenate([np.empty((0, dimension), np.float32), *parts]).astype(np.float32, copy=False), ends)

    @property
    def shape(self) -> tuple[int, int]:
        """Texts and dimensions."""
        return len(self), int(self.vectors.shape[1])

    @property
    def lengths(self) -> IntArray:
        """``[n]`` tokens of each text."""
        return np.diff(self.offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, rows: slice | Sequence[int] | IntArray) -> TokenVectors:
        if isinstance(rows, slice) and (rows.step or 1) == 1:
            first, end, _ = rows.indices(len(self))
            offsets = self.offsets[first : max(first, end) + 1]
            return TokenVectors(self.vectors[offsets[0] : offsets[-1]], offsets - offsets[0])
        wanted = np.arange(len(self))[rows]
        lengths = self.lengths[wanted]
        ends = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        places = np.repeat(self.offsets[:-1][wanted] - ends[:-1], lengths) + np.arange(ends[-1])
        return TokenVectors(self.vectors[places], ends)


def count(content: Any) -> int:
    """How many rows: of a list, a matrix, sparse rows (which have no ``len``), or vectors of tokens."""
    return int(content.shape[0]) if hasattr(content, "shape") else len(content)


def sparse_rows(rows: Sequence[FloatArray], width: int) -> Any:
    """``csr_array`` float32 of dense rows."""
    from scipy.sparse import csr_array

    if not len(rows):
        return csr_array((0, width), dtype=np.float32)
    return csr_array(np.asarray(rows, np.float32))


def top_terms(rows: Any, most: int) -> Any:
    """Sparse rows with the ``most`` heaviest entries of each; all of them where ``most`` is 0. Ties go to the lower
    column."""
    from scipy.sparse import csr_array

    if not most or not rows.nnz or int(np.diff(rows.indptr).max()) <= most:
        return rows
    keep = np.zeros(rows.nnz, bool)
    for start, end in zip(rows.indptr[:-1], rows.indptr[1:], strict=True):
        order = np.lexsort((rows.indices[start:end], -rows.data[start:end]))[:most]
        keep[start + order] = True
    ends = np.concatenate([[0], np.cumsum(keep)])[rows.indptr]
    return csr_array((rows.data[keep], rows.indices[keep], ends.astype(rows.indptr.dtype)), shape=rows.shape)


def dot(queries: Any, docs: Any) -> FloatArray:
    """``[q, n]`` float32 products of the rows of two matrices, both dense or both sparse; sparse ones in float64."""
    if isinstance(queries, np.ndarray):
        dense: FloatArray = queries @ docs.T
        return dense
    exact = queries.astype(np.float64) @ docs.astype(np.float64).T
    return np.asarray(exact.toarray(), np.float32)


def maxsim(queries: TokenVectors, docs: TokenVectors) -> FloatArray:
    """``[q, n]`` float32; memory is bounded by :data:`BLOCK` however many documents there are."""
    found = np.zeros((len(queries), len(docs)), np.float32)
    asked = np.flatnonzero(queries.lengths)
    if not len(asked):
        return found
    tokens = np.asarray(queries.vectors, np.float32)
    starts = queries.offsets[:-1][asked]
    for first, end in blocks(docs.offsets):
        best = _best(docs[first:end], tokens)
        found[asked, first:end] = np.add.reduceat(best, starts, axis=1).T
    return found


def exact_maxsim(query: FloatArray, docs: TokenVectors) -> FloatArray:
    """``[n]`` MaxSim of one query ``[tokens, d]`` summed in float64, so that equal documents get equal scores."""
    wide = query.astype(np.float64)
    parts = [_best(docs[first:end], wide).sum(axis=1) for first, end in blocks(docs.offsets)]
    return np.concatenate([np.empty(0), *parts]).astype(np.float32)


def widened(values: Any, room: FloatArray | None = None) -> FloatArray:
    """float32 of vectors ``[n, d]`` that are kept in fewer bits, in the first rows of ``room`` where there is one: new
    memory takes longer than the conversion. By torch, which converts float16 ten times as fast as numpy."""
    import torch

    room = np.empty(values.shape, np.float32) if room is None else room[: len(values)]
    into, rows = torch.from_numpy(room), torch.from_numpy(np.array(values))  # torch warns of memory that is read-only
    step = max(1, PIECE // max(1, values.shape[1]))
    for start in range(0, len(rows), step):
        into[start : start + step].copy_(rows[start : start + step])
    return room


def blocks(offsets: IntArray) -> list[tuple[int, int]]:
    """Runs of texts of about :data:`BLOCK` tokens, one text at least."""
    found, first, last = [], 0, len(offsets) - 1
    while first < last:
        end = int(np.searchsorted(offsets, offsets[first] + BLOCK, side="right")) - 1
        end = min(max(end, first + 1), last)
        found.append((first, end))
        first = end
    return found


def _best(docs: TokenVectors, tokens: Any) -> Any:
    """``[n, t]`` the best match of each query token in each document."""
    filled = np.flatnonzero(docs.lengths)
    best = np.full((len(docs), len(tokens)), WORST, tokens.dtype)
    if len(filled) and len(tokens):
        products = np.asarray(docs.vectors).astype(tokens.dtype, copy=False) @ tokens.T
        best[filled] = np.maximum.reduceat(products, docs.offsets[:-1][filled], axis=0)
    return best


def joined(parts: Sequence[Any]) -> Any:
    """Sparse rows, or vectors of tokens, one under the other."""
    if isinstance(parts[0], TokenVectors):
        lengths = np.concatenate([part.lengths for part in parts])
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        return TokenVectors(np.concatenate([part.vectors for part in parts]), offsets)
    from scipy.sparse import vstack

    return vstack(list(parts), format="csr")


def save(folder: Path, content: Any) -> None:
    """Write sparse rows, or vectors of tokens (as float16), into a folder."""
    if isinstance(content, TokenVectors):
        np.save(folder / TOKENS, content.vectors.astype(np.float16))
        np.save(folder / OFFSETS, content.offsets)
        return
    shape = np.asarray(content.shape, np.int64)
    np.savez(folder / SPARSE, shape=shape, indptr=content.indptr, indices=content.indices, data=content.data)


def load(folder: Path) -> Any:
    """Read what :func:`save` wrote; the vectors of tokens are memory-mapped. Raises DamagedArtifact."""
    import zipfile

    try:
        if (folder / SPARSE).is_file():
            return _load_sparse(folder / SPARSE)
        vectors, offsets = np.load(folder / TOKENS, mmap_mode="r"), np.load(folder / OFFSETS)
        if vectors.ndim != 2 or not _ascending(offsets, len(vectors)):
            raise ValueError("its parts do not fit together")
        return TokenVectors(vectors, offsets)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        fix = "delete the folder; the next run makes it again"
        raise DamagedArtifact(f"cannot be read: {error}", where=str(folder), fix=fix) from error


def _load_sparse(path: Path) -> Any:
    from scipy.sparse import csr_array

    with np.load(path, allow_pickle=False) as stored:
        shape, indptr, indices, data = (stored[name] for name in ("shape", "indptr", "indices", "data"))
    rows, width = (int(size) for size in shape)
    fits = len(indptr) == rows + 1 and _ascending(indptr, len(indices)) and len(indices) == len(data)
    if not fits or (len(indices) and not 0 <= indices.min() <= indices.max() < width):
        raise ValueError("its parts do not fit together")
    return csr_array((data, indices, indptr), shape=(rows, width))


def _ascending(offsets: IntArray, total: int) -> bool:
    whole = offsets.ndim == 1 and len(offsets) > 0 and offsets[0] == 0 and offsets[-1] == total
    return bool(whole and (np.diff(offsets) >= 0).all())


def check_documents(content: Any, documents: int) -> None:
    """Raises DataError: not a sparse row a document, NaN or infinity."""
    if count(content) != documents:
        raise DataError(f"{count(content)} sparse rows for {documents} documents")
    check_finite(content.data, "the documents' sparse vectors")


def check_terms(rows: Any, terms: int) -> None:
    """Raises DataError: another vocabulary than the index's, NaN or infinity."""
    if not hasattr(rows, "indptr") or rows.shape[1] != terms:
        fix = "search with the student that filled the index"
        raise DataError(f"no sparse rows over the index's {terms} terms", fix=fix)
    check_finite(rows.data, "sparse vectors")


def check_tokens(rows: Any, dimension: int) -> None:
    """Raises DataError: vectors of another dimension than the index's, NaN or infinity."""
    if not isinstance(rows, TokenVectors) or rows.shape[1] != dimension:
        fix = "search with the student that filled the index"
        raise DataError(f"no token vectors of {dimension} dimensions", fix=fix)
    check_finite(rows.vectors, "token vectors")


def check_finite(values: Any, what: str) -> None:
    """Raises DataError: NaN or infinity."""
    if not np.isfinite(values).all():
        raise DataError(f"{what} hold NaN or infinity", fix="a model trained to NaN cannot be used")
