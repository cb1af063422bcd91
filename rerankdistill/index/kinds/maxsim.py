"""Exact late interaction: MaxSim of a query's token vectors with those of every document.

For students of kind ``late_interaction`` (ColBERT). Nothing is pruned: a search reads every token of every document, so
that its time grows with the collection; a hundred thousand documents is about where another engine (PLAID, a vector
database) should take over. The vectors stay on disk, memory-mapped, in float16 or in a byte a dimension with a scale a
token; what is searched is what is kept. On the CPU; ``device`` is ignored.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np

from rerankdistill import representations
from rerankdistill.cards import Card
from rerankdistill.errors import DataError
from rerankdistill.index.ids import DocIds, check_ids, damaged, open_ids, save_ids
from rerankdistill.representations import TokenVectors
from rerankdistill.types import FloatArray, IntArray

SCALES = "scales.npy"
CELLS = 2**25
"""Scores of queries and documents that are held at a time."""
DOCS = 4096
"""Documents that are copied at a time."""
NEAR = 1e-4
"""Relative error of a score in float32: documents this near to the cut may belong to either side of it."""


class MaxsimOptions(Card):
    """How vectors are kept."""

    dtype: Literal["float16", "int8"] = "float16"
    """Two bytes a dimension, or one and two more a token."""


class Kind:
    """Keeps the promises of :class:`rerankdistill.contracts.Index`."""

    accepts: Literal["tokens"] = "tokens"
    mapped = (representations.TOKENS,)
    Options = MaxsimOptions

    def __init__(self, tokens: TokenVectors, scales: FloatArray | None, ids: DocIds) -> None:
        self.ids, self._tokens, self._scales = ids, tokens, scales
        self._rows = {name: row for row, name in enumerate(ids.names)}

    @classmethod
    def build(
        cls,
        folder: Path,
        doc_ids: Sequence[str],
        content: TokenVectors,
        options: MaxsimOptions,
        device: str = "auto",  # noqa: ARG003
    ) -> None:
        """``content``: also memory-mapped."""
        check_ids(doc_ids)
        if len(content) != len(doc_ids):
            raise DataError(f"token vectors of {len(content)} texts for {len(doc_ids)} documents")
        _write(folder, [content], content.lengths, options)
        save_ids(folder, doc_ids)

    @classmethod
    def update(
        cls,
        folder: Path,
        source: Path,
        gone: Collection[str],
        doc_ids: Sequence[str],
        content: TokenVectors,
        device: str = "auto",
    ) -> None:
        """See :func:`rerankdistill.index.update.update_index`. What stays is copied as it is kept."""
        found = cls.open(source, device)
        if len(doc_ids):
            found._check(content)
        stay, dtype = found.ids.others(gone), "float16" if found._scales is None else "int8"
        lengths = np.concatenate([found._tokens.lengths[stay], content.lengths if len(doc_ids) else []])
        kept = (found._read(stay[at : at + DOCS]) for at in range(0, len(stay), DOCS))
        parts = chain(kept, [content] if len(doc_ids) else [])
        _write(folder, parts, lengths.astype(np.int64), MaxsimOptions.model_validate({"dtype": dtype}))
        save_ids(folder, found.ids.after(stay, doc_ids))

    @classmethod
    def open(cls, folder: Path, device: str = "auto") -> Kind:  # noqa: ARG003
        ids, scales = open_ids(folder), None
        tokens = representations.load(folder)
        if len(tokens) != len(ids):
            what = f"token vectors of {len(tokens)} texts for {len(ids)} doc_ids"
            raise damaged(folder / representations.OFFSETS, ValueError(what))
        if tokens.vectors.dtype == np.int8:
            try:
                scales = np.load(folder / SCALES)
            except (OSError, ValueError, EOFError) as error:
                raise damaged(folder / SCALES, error) from error
            if scales.shape != tokens.vectors.shape[:1]:
                raise damaged(folder / SCALES, ValueError(f"{scales.shape} scales"))
        return cls(tokens, scales, ids)

    def search(self, queries: TokenVectors, depth: int) -> list[list[tuple[str, float]]]:
        """At most ``depth`` (doc_id, MaxSim) a query."""
        self._check(queries)
        out: list[list[tuple[str, float]]] = []
        step, offsets = max(1, CELLS // max(1, len(self.ids))), self._tokens.offsets
        spans = representations.blocks(offsets)
        largest = max((int(offsets[end] - offsets[first]) for first, end in spans), default=0)
        room = np.empty((largest, self._tokens.shape[1]), np.float32)
        for start in range(0, len(queries), step):
            part = queries[start : start + step]
            found = np.empty((len(part), len(self.ids)), np.float32)
            for first, end in spans:
                found[:, first:end] = representations.maxsim(part, self._read(slice(first, end), room))
            out += [self._best(part[row : row + 1], scores, depth) for row, scores in enumerate(found)]
        return out

    def _best(self, query: TokenVectors, scores: FloatArray, depth: int) -> list[tuple[str, float]]:
        """The best documents by scores that depend on the document alone, given those of a matrix library."""
        rows = np.arange(len(scores))
        if len(scores) > depth:
            cut = float(np.partition(scores, len(scores) - depth)[len(scores) - depth])
            rows = np.flatnonzero(scores >= cut - NEAR * max(1.0, abs(cut)))
        exact = representations.exact_maxsim(query.vectors, self._read(rows))
        return self.ids.ordered(rows, exact, depth)

    def score(self, query: TokenVectors, doc_ids: Sequence[str]) -> FloatArray:
        """``[len(doc_ids)]`` MaxSim of one query, token vectors of one text, with these documents."""
        self._check(query)
        rows: IntArray = np.asarray([self._rows[doc_id] for doc_id in doc_ids], np.int64)
        return representations.exact_maxsim(query.vectors, self._read(rows))

    def _read(self, rows: slice | IntArray, room: FloatArray | None = None) -> TokenVectors:
        """Documents as they are kept, in float32; in ``room`` until it is filled anew."""
        found = self._tokens[rows]
        vectors = representations.widened(found.vectors, room)
        if self._scales is not None:
            vectors *= TokenVectors(self._scales[:, None], self._tokens.offsets)[rows].vectors.astype(np.float32)
        return TokenVectors(vectors, found.offsets)

    def _check(self, queries: Any) -> None:
        representations.check_tokens(queries, self._tokens.shape[1])


def _write(folder: Path, parts: Iterable[TokenVectors], lengths: IntArray, options: MaxsimOptions) -> None:
    """Write parts one after the other; ``lengths``: of all their documents."""
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    scales = np.empty(offsets[-1], np.float16)
    out, at = None, 0
    for part in parts:
        if out is None:
            shape, dtype = (int(offsets[-1]), part.shape[1]), np.dtype(options.dtype)
            out = np.lib.format.open_memmap(folder / representations.TOKENS, mode="w+", dtype=dtype, shape=shape)
        for start in range(0, len(part.vectors), representations.BLOCK):
            block = np.asarray(part.vectors[start : start + representations.BLOCK], np.float32)
            representations.check_finite(block, "the documents' token vectors")
            here = slice(at, at + len(block))
            if options.dtype == "int8":
                scales[here] = np.maximum(np.abs(block).max(axis=1, initial=0) / 127, 1e-7)
                block = np.clip(np.rint(block / scales[here, None].astype(np.float32)), -127, 127)
            out[here] = block
            at += len(block)
    np.save(folder / representations.OFFSETS, offsets)
    if options.dtype == "int8":
        np.save(folder / SCALES, scales)
