"""What an exported student is held against: the same student in torch, on texts and queries of a collection.

What it says is that of torch in float32 everywhere; how fast it is, that of torch as the machine computes it best.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol

import numpy as np

from rerankdistill.artifacts import fingerprint
from rerankdistill.collections.work import Work
from rerankdistill.encoding import EXACT, Tokens, open_encoder, tokenise
from rerankdistill.errors import DataError
from rerankdistill.evaluation.measure import measure
from rerankdistill.kinds import open_kind
from rerankdistill.students.export import scores_module, vectors_module
from rerankdistill.students.exported import ExportedEncoder, ExportedScorer, Session
from rerankdistill.students.folder import Folder
from rerankdistill.types import FloatArray, Judgement, Query, Run

NDCG = "ndcg@10"
SPLITS = ("dev", "test", "train")
"""Whose judgements are taken, the first that is there."""
DECIMALS = 5
"""Of scores that are ranked: documents that say the same are a tie, in whatever order a library adds up."""
QUERIES, PER_QUERY, CANDIDATES, CALIBRATION = 100, 5, 8, 48


class Sample(NamedTuple):
    """``texts`` by id; ``judged``: what is known of the queries; ``split``: of which they are."""

    texts: dict[str, str]
    queries: list[Query]
    judged: list[Judgement]
    split: str

    @property
    def told(self) -> str:
        asked = f"{len(self.queries)} queries of {self.split}" if self.judged else "no judged queries"
        return f"{len(self.texts)} texts, {asked}"


class Subject(Protocol):
    """A student in torch: ``speed`` in ``unit`` a second."""

    speed: float
    unit: str

    def module(self) -> Any:
        """The network that is exported."""

    def tokens(self) -> Tokens:
        """Some texts that it is traced and smoothed with."""

    def compare(self, session: Session) -> dict[str, float]:
        """What a form says otherwise, what that costs, and its speed."""


def draw(work: Work, count: int) -> Sample:
    """A sample that is always the same: documents and queries by hash, and the documents that judgements name."""
    source, chosen = work.source, partial(sorted, key=fingerprint)
    ids = list(chosen(source.doc_ids())[: count + CALIBRATION])
    split = next((name for name in SPLITS if name in source.splits()), "")
    queries, judged = [], []
    if split:
        queries = sorted(source.queries(split), key=lambda query: fingerprint(query.query_id))[:QUERIES]
        known, left = set(source.doc_ids()), {query.query_id: PER_QUERY for query in queries}
        for each in source.judgements(split):
            if each.grade > 0 and left.get(each.query_id, 0) and each.doc_id in known:
                left[each.query_id] -= 1
                judged.append(each)
        queries = [query for query in queries if left[query.query_id] < PER_QUERY]
    ids = list(dict.fromkeys([*ids, *(each.doc_id for each in judged)]))
    return Sample(dict(zip(ids, source.texts(ids, work.view), strict=True)), queries, judged, split)


class Vectored:
    """A bi-encoder."""

    unit = "texts"

    def __init__(self, found: Folder, sample: Sample) -> None:
        wanted = {"query": found.options.get("query_tokens"), "doc": found.options.get("doc_tokens")}
        lengths = {role: int(most) for role, most in wanted.items() if most}
        self.encoder = open_encoder(str(found.path), device="cpu", dtype="float32", max_tokens=lengths)
        self.sample, self.texts = sample, list(sample.texts.values())
        self.want = self.encoder.encode(self.texts, "doc")
        self.asked = [query.text for query in sample.queries]
        self.ndcg = self._ndcg(self.encoder.encode(self.asked, "query"), self.want)
        own = open_encoder(str(found.path), device="cpu", max_tokens=lengths)
        self.speed = _speed(lambda texts: own.encode(texts, "doc"), self.texts)

    def module(self) -> Any:
        return vectors_module(self.encoder.model)

    def tokens(self) -> Tokens:
        return self.encoder.tokens(self.texts[:CALIBRATION], "doc")

    def compare(self, session: Session) -> dict[str, float]:
        """``cosine``, the mean over texts and queries, and ``least cosine``."""
        other = ExportedEncoder(self.encoder, session, "")
        got, asked = other.encode(self.texts, "doc"), other.encode(self.asked, "query")
        cosines = _cosines(got, self.want)
        found = {"cosine": float(cosines.mean()), "least cosine": float(cosines.min())}
        if self.ndcg is not None:
            found |= {NDCG: self.ndcg, f"{NDCG} lost": self.ndcg - (self._ndcg(asked, got) or 0)}
        speed = _speed(lambda texts: other.encode(texts, "doc"), self.texts)
        return found | {"texts_per_second": speed, "torch_texts_per_second": self.speed}

    def _ndcg(self, queries: FloatArray, docs: FloatArray) -> float | None:
        if not self.sample.judged:
            return None
        names = list(self.sample.texts)
        hits = {
            query.query_id: [(names[at], float(row[at])) for at in np.argsort(-row, kind="stable")[:10].tolist()]
            for query, row in zip(self.sample.queries, np.round(queries @ docs.T, DECIMALS), strict=True)
        }
        return measure(Run.from_hits("exported", hits), self.sample.judged, (NDCG,)).means[NDCG]


class Scored:
    """A cross-encoder, on each query's own documents and some others."""

    unit = "pairs"

    def __init__(self, found: Folder, sample: Sample) -> None:
        kind = open_kind("students", "cross_encoder")
        most = int(found.options.get("max_tokens") or 512)
        own = kind.open(found.path, kind.Options(init=str(found.path), max_tokens=most), "cpu")
        self.student = kind(own.network, own.options, EXACT, own.fingerprint)
        self.most, self.sample = most, sample
        self.pairs, self.names = _pairs(sample)
        self.want = self.student.score(self.pairs)
        self.spread = float(self.want.std()) or 1.0
        self.ndcg = self._ndcg(self.want)
        self.speed = _speed(own.score, self.pairs)

    def module(self) -> Any:
        return scores_module(self.student.network.eval())

    def tokens(self) -> Tokens:
        queries, docs = zip(*self.pairs[:CALIBRATION], strict=True)
        return tokenise(self.student.network.tokenizer, queries, self.most, docs)

    def compare(self, session: Session) -> dict[str, float]:
        """``off``: the mean difference of a score in standard deviations of the scores; ``most off``."""
        other = ExportedScorer(self.student.network.tokenizer, self.most, session, "")
        got = other.score(self.pairs)
        off = np.abs(got - self.want) / self.spread
        found = {"off": float(off.mean()), "most off": float(off.max())}
        if self.ndcg is not None:
            found |= {NDCG: self.ndcg, f"{NDCG} lost": self.ndcg - (self._ndcg(got) or 0)}
        return found | {"texts_per_second": _speed(other.score, self.pairs), "torch_texts_per_second": self.speed}

    def _ndcg(self, scores: FloatArray) -> float | None:
        if not self.sample.judged:
            return None
        hits: dict[str, list[tuple[str, float]]] = {}
        for (query_id, doc_id), score in zip(self.names, np.round(scores, DECIMALS).tolist(), strict=True):
            hits.setdefault(query_id, []).append((doc_id, score))
        return measure(Run.from_hits("exported", hits), self.sample.judged, (NDCG,)).means[NDCG]


def _pairs(sample: Sample) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Texts of pairs, and their ids: a query's judged documents and :data:`CANDIDATES` others; of a collection without
    judged queries the first words of a text stand for a query."""
    ids = list(sample.texts)
    if not ids:
        raise DataError("the collection has no texts")
    queries = sample.queries or [Query(name, " ".join(sample.texts[name].split()[:8])) for name in ids[:QUERIES]]
    own: dict[str, list[str]] = {}
    for each in sample.judged:
        own.setdefault(each.query_id, []).append(each.doc_id)
    names = []
    for number, query in enumerate(queries):
        others = [ids[(number * CANDIDATES + step) % len(ids)] for step in range(CANDIDATES)]
        names += [(query.query_id, doc_id) for doc_id in dict.fromkeys([*own.get(query.query_id, []), *others])]
    words = {query.query_id: query.text for query in queries}
    return [(words[query_id], sample.texts[doc_id]) for query_id, doc_id in names], names


def _cosines(a: FloatArray, b: FloatArray) -> FloatArray:
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    found: FloatArray = (a * b).sum(axis=1) / np.maximum(lengths, 1e-12)
    return found


def _speed(work: Callable[[Sequence[Any]], Any], items: Sequence[Any], most: int = 128) -> float:
    """Items a second, the better of two rounds after a warming one."""
    some, best = items[:most], 0.0
    work(some[:16])
    for _ in range(2):
        began = time.perf_counter()
        work(some)
        best = max(best, len(some) / max(time.perf_counter() - began, 1e-9))
    return best
