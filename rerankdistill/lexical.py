"""BM25 statistics (bm25s), shared by the ``bm25`` index and the lexical teacher.

Lucene's variant of BM25 with Snowball stemming and English stop words. Besides searching, it scores any pair of a query
and a document in a few lookups, which is what makes a lexical teacher free over a whole batch.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pydantic import Field, field_validator

from rerankdistill import representations
from rerankdistill.artifacts import fingerprint
from rerankdistill.cards import Card
from rerankdistill.errors import DamagedArtifact, DataError, StaleArtifact
from rerankdistill.types import FloatArray, IntArray

logging.getLogger("bm25s").setLevel(logging.WARNING)  # it sets itself to DEBUG when imported


class Bm25Options(Card):
    """BM25 and its analysis.

    Attributes:
        k1, b: saturation of term frequency and strength of length normalisation.
        language: a Snowball stemmer's name, or empty for no stemming.
        stopwords: a language code that bm25s has a list for, or empty to keep every word.
    """

    k1: float = Field(default=0.9, ge=0, allow_inf_nan=False)
    b: float = Field(default=0.4, ge=0, le=1)
    language: str = "english"
    stopwords: str = "en"

    @field_validator("language")
    @classmethod
    def _stemmer_exists(cls, value: str) -> str:
        import Stemmer

        if value and value not in Stemmer.algorithms():
            known = ", ".join(Stemmer.algorithms())
            raise ValueError(f"no Snowball stemmer has this name; one of: {known}; or empty for no stemming")
        return value

    @field_validator("stopwords")
    @classmethod
    def _stop_words_exist(cls, value: str) -> str:
        from bm25s.tokenization import _infer_stopwords

        try:
            _infer_stopwords(value or None)
        except ValueError as error:
            raise ValueError(f"bm25s has no stop words of this name, e.g. 'en' or 'de'; or empty: {error}") from error
        return value


class Counts(NamedTuple):
    """How often each document has each term, which is all that BM25 asks of a text."""

    rows: Any
    """``csr_array [documents, terms]`` of whole numbers."""
    terms: list[str]
    """In alphabetical order. bm25s numbers stems in the order of a Python set, which differs between processes and
    would make two builds of one collection differ."""


class Lexical:
    """BM25 over documents numbered 0..n-1.

    Attributes:
        fingerprint: of the documents' tokens and the options; a lexical teacher carries it in its own.
        count: the number of documents.
    """

    def __init__(
        self, retriever: Any, options: Bm25Options, mark: str, count: int, counts: Counts | None = None
    ) -> None:
        self._retriever, self.options, self.fingerprint, self.count = retriever, options, mark, count
        self._counts = counts
        self._stemmer = _stemmer(options)
        self._vocabulary: Mapping[str, int] = retriever.vocab_dict

    @classmethod
    def build(cls, texts: Sequence[str], options: Bm25Options) -> Lexical:
        """Index ``texts``. Raises DataError when there is not one token in them."""
        return cls._of(_counted(texts, options), options)

    @classmethod
    def renew(cls, folder: Path, stay: IntArray, texts: Sequence[str]) -> Lexical:
        """Of the documents numbered ``stay`` of what :meth:`save` wrote, and ``texts`` behind them.

        It is to the last bit what :meth:`build` makes of all of their texts, of which only the new ones are needed.

        Raises:
            StaleArtifact: a version that kept no counts wrote it.
            DataError: not one token would be left.
        """
        before = cls.open(folder)
        if not (folder / representations.SPARSE).is_file():
            what = "this BM25 index was written by an earlier version and cannot be updated"
            raise StaleArtifact(what, where=str(folder), fix="build it again")
        rows = representations.load(folder)
        terms = sorted(before._vocabulary, key=before._vocabulary.__getitem__)[: rows.shape[1]]
        return cls._of(_joined(Counts(rows[stay], terms), _counted(texts, before.options)), before.options)

    @classmethod
    def _of(cls, counts: Counts, options: Bm25Options) -> Lexical:
        import bm25s

        rows, terms = counts
        if not rows.nnz:
            raise DataError("no document has a word that BM25 could index", fix="check the collection's texts")
        ends = np.cumsum(rows.sum(axis=1))
        ids = [part.tolist() for part in np.split(np.repeat(rows.indices, rows.data), ends[:-1])]
        retriever = bm25s.BM25(method="lucene", k1=options.k1, b=options.b)
        vocabulary = {term: number for number, term in enumerate(terms)}
        retriever.index(bm25s.tokenization.Tokenized(ids=ids, vocab=vocabulary), show_progress=False)
        scores = retriever.scores
        parts = (np.ascontiguousarray(scores[key]).tobytes() for key in ("data", "indices", "indptr"))
        mark = fingerprint(options.model_dump(), sorted(retriever.vocab_dict), len(ids), *parts)
        return cls(retriever, options, mark, len(ids), counts)

    def save(self, folder: Path) -> None:
        """Write what was built into a folder that is there. Raises ValueError for what was opened from one."""
        if self._counts is None:
            raise ValueError("what was opened is saved already")
        self._retriever.save(str(folder), show_progress=False)
        representations.save(folder, self._counts.rows)
        about = {"options": self.options.model_dump(), "fingerprint": self.fingerprint, "count": self.count}
        (folder / "lexical.json").write_text(json.dumps(about), "utf-8")

    @classmethod
    def open(cls, folder: Path) -> Lexical:
        """Open what :meth:`save` wrote. Raises DamagedArtifact."""
        import bm25s

        try:
            about = json.loads((folder / "lexical.json").read_text("utf-8"))
            retriever = bm25s.BM25.load(str(folder), mmap=True)
        except (OSError, ValueError, KeyError) as error:
            fix = "delete the folder; the next run builds it again"
            raise DamagedArtifact(f"BM25 index cannot be read: {error}", where=str(folder), fix=fix) from error
        return cls(retriever, Bm25Options(**about["options"]), about["fingerprint"], about["count"])

    def tokens(self, texts: Sequence[str]) -> list[list[str]]:
        """The texts' terms after stop words and stemming."""
        import bm25s

        found: list[list[str]] = bm25s.tokenize(
            list(texts),
            stopwords=self.options.stopwords or None,
            stemmer=self._stemmer,
            return_ids=False,
            show_progress=False,
        )
        return found

    def search(
        self, texts: Sequence[str], depth: int, tie_order: IntArray | None = None
    ) -> tuple[IntArray, FloatArray]:
        """The best documents of each query, exactly.

        Args:
            tie_order: ``[count]`` the place of every document among equals; without it, the smaller number is first.

        Returns:
            ``[q, k]`` document numbers and scores, best first, ``k = min(depth, count)``. A slot that no document with
            a term of the query fills holds -1 and 0.
        """
        depth = min(depth, self.count)
        numbers = np.full((len(texts), depth), -1, np.int64)
        scores = np.zeros((len(texts), depth), np.float32)
        for row, terms in enumerate(self.tokens(texts)):
            every = self._all_scores(terms)
            found = _best(every, depth, tie_order)
            numbers[row, : len(found)], scores[row, : len(found)] = found, every[found]
        return numbers, scores

    def matrix(self, texts: Sequence[str], docs: Sequence[int] | IntArray) -> FloatArray:
        """``[len(texts), len(docs)]`` BM25 scores of every query against the documents numbered ``docs``, equal to the
        last bit to those of :meth:`search`."""
        wanted = np.asarray(docs, np.int64)
        out = np.zeros((len(texts), len(wanted)), np.float32)
        for row, terms in enumerate(self.tokens(texts)):
            for posting, weights in self._postings(terms):
                at = np.minimum(np.searchsorted(posting, wanted), len(posting) - 1)
                out[row] += np.where(posting[at] == wanted, weights[at], np.float32(0))
        return out

    def _all_scores(self, terms: Sequence[str]) -> FloatArray:
        """``[count]`` scores: those of bm25s's ``get_scores``, which adds each term's posting list in turn."""
        out = np.zeros(self.count, np.float32)
        for posting, weights in self._postings(terms):
            out[posting] += weights
        return out

    def _postings(self, terms: Sequence[str]) -> Iterator[tuple[Any, Any]]:
        """For each known term (again for each repetition) its documents' numbers, ascending, and their weights."""
        matrix = self._retriever.scores
        data, indices, starts = matrix["data"], matrix["indices"], matrix["indptr"]
        for term in terms:
            number = self._vocabulary.get(term)
            if number is None:
                continue
            start, end = int(starts[number]), int(starts[number + 1])
            if start < end:
                yield indices[start:end], data[start:end]


def _best(scores: FloatArray, depth: int, tie_order: IntArray | None) -> IntArray:
    """The numbers of the ``depth`` best positive scores, by (-score, tie order): equals at the cut are not left to a
    partition's whim."""
    found = np.flatnonzero(scores > 0)
    if len(found) > depth:
        cut = np.partition(scores[found], len(found) - depth)[len(found) - depth]
        found = found[scores[found] >= cut]
    places = found if tie_order is None else tie_order[found]
    return found[np.lexsort((places, -scores[found]))][:depth]


def _counted(texts: Sequence[str], options: Bm25Options) -> Counts:
    """The terms of texts, after stop words and stemming."""
    import bm25s
    from scipy.sparse import csr_array

    found = bm25s.tokenize(
        list(texts), stopwords=options.stopwords or None, stemmer=_stemmer(options), show_progress=False
    )
    terms = sorted(found.vocab)
    number = np.empty(len(terms), np.int32)
    for place, term in enumerate(terms):
        number[found.vocab[term]] = place
    ends = np.cumsum([0, *(len(row) for row in found.ids)])
    words = np.fromiter(chain.from_iterable(found.ids), np.int64, int(ends[-1]))
    rows = csr_array((np.ones(len(words), np.int32), number[words], ends), shape=(len(texts), len(terms)))
    rows.sum_duplicates()
    return Counts(rows, terms)


def _joined(first: Counts, second: Counts) -> Counts:
    """The documents of both, and the terms that one of them has."""
    from scipy.sparse import csr_array, vstack

    every = sorted({*first.terms, *second.terms})
    place = {term: number for number, term in enumerate(every)}
    moved = []
    for rows, terms in (first, second):
        columns = np.asarray([place[term] for term in terms], np.int32)
        shape = (rows.shape[0], len(every))
        moved.append(csr_array((rows.data, columns[rows.indices], rows.indptr), shape=shape))
    rows = vstack(moved, format="csr")
    used = np.unique(rows.indices)
    return Counts(rows[:, used], [every[number] for number in used.tolist()])


def _stemmer(options: Bm25Options) -> Any:
    if not options.language:
        return None
    import Stemmer

    return Stemmer.Stemmer(options.language)
