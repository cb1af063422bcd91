"""Late interaction in few bytes: each token is kept as its nearest centroid and, coarsely, what that leaves over.

For students of kind ``late_interaction`` over more documents than ``maxsim`` can read for each query. Residual
compression is that of ColBERTv2 (Santhanam et al. 2022, arXiv:2112.01488), by faiss's inverted-file codecs. A search
opens the ``nprobe`` lists nearest to each of the query's tokens, adds up for each document the best of its opened
centroids (a token that meets none counts as the last one opened; after XTR, Lee et al. 2023, arXiv:2304.01982), and
reads the ``candidates`` best documents whole: scores are MaxSim with the vectors as they are kept. The codes stay on
disk, memory-mapped; memory holds which list has which document. On the CPU; ``device`` is ignored.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from rerankdistill import representations
from rerankdistill.cards import Card
from rerankdistill.codebooks import Layout, fit_layout, lists_for, load_faiss, sample
from rerankdistill.errors import DataError
from rerankdistill.index.ids import DocIds, check_ids, damaged, open_ids, save_ids
from rerankdistill.index.vectors import FILE, read_faiss
from rerankdistill.representations import TokenVectors
from rerankdistill.types import FloatArray, IntArray

OPTIONS = "options.json"
DOCS = 4096
"""Documents that are copied at a time."""
EXAMPLES = 64
"""Tokens for each centroid that training looks at, at most: there are so many tokens that more is time lost."""


class ResidualOptions(Card):
    """How tokens are kept and found.

    Attributes:
        bits: a dimension, of what the centroid leaves over.
        nlist: centroids; 0: about four times the square root of the number of tokens, with 39 tokens each at least.
        nprobe: lists that a search opens for each token of the query.
        candidates: documents that are read whole for a query; at least as many as are asked for.
        seed: of the training: equal seeds give equal indexes.
    """

    bits: Literal[8, 6, 4] = 4
    nlist: int = Field(default=0, ge=0)
    nprobe: int = Field(default=32, ge=1)
    candidates: int = Field(default=1024, ge=1)
    seed: int = 1


class Kind:
    """Keeps the promises of :class:`rerankdistill.contracts.Index`."""

    accepts: Literal["tokens"] = "tokens"
    mapped = (representations.TOKENS,)
    Options = ResidualOptions

    def __init__(self, codec: Any, codes: TokenVectors, ids: DocIds, options: ResidualOptions) -> None:
        """``codec``: a trained faiss index without vectors; ``codes``: of each document's tokens, as it makes them."""
        self.ids, self._codec, self._codes, self._options = ids, codec, codes, options
        self._rows = {name: row for row, name in enumerate(ids.names)}
        self._lists = _lists(codec, codes)

    @classmethod
    def build(
        cls,
        folder: Path,
        doc_ids: Sequence[str],
        content: TokenVectors,
        options: ResidualOptions,
        device: str = "auto",  # noqa: ARG003
    ) -> None:
        """``content``: also memory-mapped."""
        check_ids(doc_ids)
        if len(content) != len(doc_ids):
            raise DataError(f"token vectors of {len(content)} texts for {len(doc_ids)} documents")
        if not len(content.vectors):
            raise DataError("no document has a token", fix="check the collection's texts")
        codec = train(content.vectors, options)
        _write(folder, codec, _encoded(codec, content), content.lengths, options)
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
        stay, more = found.ids.others(gone), len(doc_ids) > 0
        lengths = np.concatenate([found._codes.lengths[stay], content.lengths if more else []])
        kept = (found._codes[stay[at : at + DOCS]].vectors for at in range(0, len(stay), DOCS))
        parts = chain(kept, _encoded(found._codec, content) if more else [])
        _write(folder, found._codec, parts, lengths.astype(np.int64), found._options)
        save_ids(folder, found.ids.after(stay, doc_ids))

    @classmethod
    def open(cls, folder: Path, device: str = "auto") -> Kind:  # noqa: ARG003
        ids, codec, codes = open_ids(folder), read_faiss(folder / FILE), representations.load(folder)
        try:
            options = ResidualOptions.model_validate_json((folder / OPTIONS).read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise damaged(folder / OPTIONS, error) from error
        if len(codes) != len(ids) or codes.shape[1] != codec.sa_code_size():
            what = f"codes of {len(codes)} texts, of {codes.shape[1]} bytes, for {len(ids)} doc_ids"
            raise damaged(folder / representations.TOKENS, ValueError(what))
        return cls(codec, codes, ids, options)

    def search(self, queries: TokenVectors, depth: int) -> list[list[tuple[str, float]]]:
        """At most ``depth`` (doc_id, MaxSim) a query."""
        self._check(queries)
        out = []
        for row in range(len(queries)):
            query = np.ascontiguousarray(queries[row : row + 1].vectors, np.float32)
            rows = self._propose(query, max(self._options.candidates, depth))
            out.append(self.ids.ordered(rows, representations.exact_maxsim(query, self._read(rows)), depth))
        return out

    def score(self, query: TokenVectors, doc_ids: Sequence[str]) -> FloatArray:
        """``[len(doc_ids)]`` MaxSim of one query, token vectors of one text, with these documents."""
        self._check(query)
        rows: IntArray = np.asarray([self._rows[doc_id] for doc_id in doc_ids], np.int64)
        return representations.exact_maxsim(query.vectors, self._read(rows))

    def _propose(self, query: FloatArray, most: int) -> IntArray:
        """Rows, ascending, of about ``most`` documents by their centroids alone; equals at the cut come together."""
        count = len(self.ids)
        if count <= most or not len(query):
            return np.arange(min(count, most))
        values, lists = self._codec.quantizer.search(query, min(self._options.nprobe, self._codec.nlist))
        totals, met = np.zeros(count, np.float32), np.zeros(count, bool)
        for token, opened in zip(values, lists, strict=True):
            best = np.full(count, token[-1], np.float32)
            for value, number in zip(token[::-1], opened[::-1], strict=True):  # the best one is written last
                docs = self._lists.indices[self._lists.indptr[number] : self._lists.indptr[number + 1]]
                best[docs] = value
                met[docs] = True
            totals += best
        rows = np.flatnonzero(met)
        if len(rows) > most:
            cut = np.partition(totals[rows], len(rows) - most)[len(rows) - most]
            rows = rows[totals[rows] >= cut]
        return rows

    def _read(self, rows: IntArray) -> TokenVectors:
        """Documents as they are kept, in float32."""
        found = self._codes[rows]
        return TokenVectors(self._codec.sa_decode(np.ascontiguousarray(found.vectors)), found.offsets)

    def _check(self, queries: Any) -> None:
        representations.check_tokens(queries, self._codec.d)


def train(vectors: Any, options: ResidualOptions) -> Any:
    """A faiss index without vectors that codes tokens: ``[n, d]`` of them, also memory-mapped, are its examples."""
    faiss = load_faiss()
    count, dimension = vectors.shape
    nlist = options.nlist or lists_for(count)
    fit_layout(Layout(1, 1, nlist), dimension, max(count, 2))
    codec = faiss.index_factory(dimension, f"IVF{nlist},SQ{options.bits}", faiss.METRIC_INNER_PRODUCT)
    codec.cp.seed, codec.cp.min_points_per_centroid = options.seed, 1
    points = sample(vectors, min(count, EXAMPLES * nlist), options.seed)
    representations.check_finite(points, "the documents' token vectors")
    codec.train(points)
    return codec


def _encoded(codec: Any, content: TokenVectors) -> Iterable[Any]:
    """Codes ``[tokens, bytes]``, block by block."""
    for start in range(0, len(content.vectors), representations.BLOCK):
        block = np.ascontiguousarray(content.vectors[start : start + representations.BLOCK], np.float32)
        representations.check_finite(block, "the documents' token vectors")
        yield codec.sa_encode(block)


def _write(folder: Path, codec: Any, parts: Iterable[Any], lengths: IntArray, options: ResidualOptions) -> None:
    """Write the codes of parts one after the other; ``lengths``: of all their documents."""
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    shape, at = (int(offsets[-1]), codec.sa_code_size()), 0
    out = np.lib.format.open_memmap(folder / representations.TOKENS, mode="w+", dtype=np.uint8, shape=shape)
    for part in parts:
        out[at : at + len(part)] = part
        at += len(part)
    out.flush()
    np.save(folder / representations.OFFSETS, offsets)
    load_faiss().write_index(codec, str(folder / FILE))
    (folder / OPTIONS).write_text(options.model_dump_json(), "utf-8")


def _lists(codec: Any, codes: TokenVectors) -> Any:
    """``csr_array [nlist, documents]``: which documents have a token in which list, as codes begin with its number."""
    from scipy.sparse import csr_array

    wide = codec.coarse_code_size()
    numbers = np.zeros((len(codes.vectors), 8), np.uint8)
    numbers[:, :wide] = codes.vectors[:, :wide]
    docs = np.repeat(np.arange(len(codes)), codes.lengths)
    there = np.ones(len(docs), bool)
    found = csr_array((there, (numbers.view("<i8")[:, 0], docs)), shape=(codec.nlist, len(codes)))
    found.sum_duplicates()
    return found
