"""Search: an engine's stages one after the other, each with its time.

An engine is named as a report names it: ``small``, ``bm25``, ``bm25 + small`` for both fused, ``small > reader`` for a
cross-encoder ``reader`` that re-ranks what ``small`` finds.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from rerankdistill.collections.metadata import Filter
from rerankdistill.errors import UsageError
from rerankdistill.runs.fuse import reciprocal_rank, zscore_sum
from rerankdistill.serving import why
from rerankdistill.serving.batcher import Batcher
from rerankdistill.serving.library import LEXICAL, Library, Ranker
from rerankdistill.serving.reranking import Pace, reordered, within
from rerankdistill.serving.weights import weights_for
from rerankdistill.types import Hit, Run, View

Fuse = Literal["learned", "zscore", "rrf"]
THREADS = 2
QUERY = "q"


@dataclass(frozen=True)
class Request:
    """What is asked for.

    Attributes:
        depth: documents that each index gives, before they are fused and re-ranked.
        fuse: by the sum of z-scores or of reciprocal ranks; ``learned``: of z-scores, by the weights that
            :mod:`rerankdistill.serving.weighing` found for this engine, where it did.
        weights: of the fused engines, in their order; none: all alike, or as learnt. Of z-scores alone.
        rerank_depth: documents that a cross-encoder reads, if the time of ``budget_ms`` suffices.
    """

    query: str
    engine: str
    top: int = 10
    depth: int = 100
    fuse: Fuse = "learned"
    weights: tuple[float, ...] = ()
    filters: tuple[Filter, ...] = ()
    budget_ms: float = 500.0
    rerank_depth: int = 50
    why: bool = False


class Engine(NamedTuple):
    """``rankers`` are fused where there are several; ``reranker``: empty for none."""

    rankers: tuple[Ranker, ...]
    reranker: str


@dataclass
class Found:
    """``hits`` best first; ``read``: how many of the first a cross-encoder scored; ``weights``: what engines were fused
    by."""

    engine: str
    hits: list[Hit] = field(default_factory=list)
    latency_ms: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    read: int = 0
    weights: tuple[float, ...] = ()
    stopped_early: bool = False
    why: dict[str, list[tuple[why.Span, float]]] = field(default_factory=dict)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self.latency_ms[stage] = round((time.perf_counter() - began) * 1000, 3)


class Searcher:
    """Answers searches over a library; models run in the server's batches, indexes in threads."""

    def __init__(self, library: Library, batcher: Batcher) -> None:
        self.library, self._batcher = library, batcher
        self._threads = ThreadPoolExecutor(THREADS, "search")
        self._paces = {name: Pace() for name in library.rerankers}

    async def search(self, asked: Request) -> Found:
        """Raises UsageError: no such engine or field, or weights that do not fit."""
        engine, found = self.engine(asked.engine), Found(asked.engine)
        if asked.weights and len(asked.weights) != len(engine.rankers):
            raise UsageError(f"{len(asked.weights)} weights for {len(engine.rankers)} engines", where="weights")
        found.weights = self._weights(engine, asked)
        with found.timed("total"):
            runs = await self.runs(asked, found)
            with found.timed("fuse"):
                hits = fused(runs, asked, found.weights)
            if engine.reranker:
                hits = await self._reranked(engine.reranker, asked, hits, found)
            found.hits = hits[: asked.top]
            if asked.why:
                with found.timed("why"):
                    found.why = await self.why(asked.query, asked.engine, [hit.doc_id for hit in found.hits])
        return found

    async def runs(self, asked: Request, found: Found | None = None) -> list[Run]:
        """What each of the engine's parts finds for :data:`QUERY`, before they are fused."""
        told = found or Found(asked.engine)
        passing = self.library.metadata.passing(asked.filters) if asked.filters else None
        rankers = self.engine(asked.engine).rankers
        return list(await asyncio.gather(*(self._retrieve(each, asked, passing, told) for each in rankers)))

    def _weights(self, engine: Engine, asked: Request) -> tuple[float, ...]:
        if asked.weights or asked.fuse != "learned" or len(engine.rankers) == 1:
            return asked.weights
        return weights_for(self.library.weights, {each.name: each.mark for each in engine.rankers})

    def engine(self, name: str) -> Engine:
        """Raises UsageError: it names what is not there."""
        first, _, reranker = (part.strip() for part in name.partition(">"))
        parts = [part.strip() for part in first.split("+")]
        unknown = [part for part in parts if part not in self.library.rankers]
        if unknown or (reranker and reranker not in self.library.rerankers):
            known = ", ".join(self.library.names())
            raise UsageError(
                f"no engine is called {(unknown or [reranker])[0]!r}", where="engine", fix=f"known: {known}"
            )
        return Engine(tuple(self.library.rankers[part] for part in parts), reranker)

    async def why(self, query: str, engine: str, doc_ids: Sequence[str]) -> dict[str, list[tuple[why.Span, float]]]:
        """The sentences of each document's body that the engine scores highest: by its cross-encoder, else by its
        bi-encoder, else by the words that they share with the query."""
        bodies = self.library.work.source.texts(doc_ids, View.TEXT)
        spans = [why.sentences(body) for body in bodies]
        flat = [body[span.start : span.end] for body, own in zip(bodies, spans, strict=True) for span in own]
        scores = await self._sentence_scores(query, self.engine(engine), flat)
        found, at = {}, 0
        for doc_id, own in zip(doc_ids, spans, strict=True):
            found[doc_id] = why.best(own, scores[at : at + len(own)])
            at += len(own)
        return found

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _thread(self, work: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)

    async def _retrieve(self, ranker: Ranker, asked: Request, passing: Any, found: Found) -> Run:
        with found.timed(f"encode {ranker.name}"):
            content = await self._encoded(ranker, [asked.query])
        with found.timed(f"search {ranker.name}"):
            hits = await self._thread(self._search, ranker, content, max(asked.depth, asked.top), passing)
        return Run.from_hits(ranker.name, {QUERY: hits})

    async def _encoded(self, ranker: Ranker, texts: Sequence[str]) -> Any:
        if ranker.embedder is not None:
            tokens = ranker.embedder.tokens(texts, "query")
            return await self._batcher.run(ranker.embedder.networks["query"], tokens)
        return await self._thread(ranker.encode, texts) if ranker.encode else list(texts)

    def _search(self, ranker: Ranker, content: Any, depth: int, passing: Any) -> list[tuple[str, float]]:
        """The best ``depth`` that pass: the index is asked for more until there are as many, or it has no more."""
        count = len(self.library.metadata.doc_ids)
        if passing is None:
            return ranker.index.search(content, min(depth, count))[0]
        row, fetch = self.library.metadata.row, depth
        if not passing.any():
            return []
        while True:
            fetch = min(fetch * 4, count)
            hits = ranker.index.search(content, fetch)[0]
            kept = [hit for hit in hits if passing[row(hit[0])]]
            if len(kept) >= depth or fetch == count or len(hits) < fetch:
                return kept[:depth]

    async def _reranked(self, name: str, asked: Request, hits: list[Hit], found: Found) -> list[Hit]:
        reranker = self.library.rerankers[name]
        head = hits[: asked.rerank_depth]
        texts = self.library.texts([hit.doc_id for hit in head])

        async def score(some: Sequence[str]) -> list[float]:
            scores = await self._batcher.run(reranker.network, reranker.tokens(asked.query, some))
            return [float(each) for each in scores]

        with found.timed("rerank"):
            made = await within(texts, score, asked.budget_ms / 1000, self._paces[name])
        found.read, found.stopped_early = len(made.scores), made.stopped
        if made.stopped:
            found.notes.append(f"re-ranking read {found.read} of {len(head)} documents in {asked.budget_ms:g} ms")
        read = [Hit(hit.doc_id, score) for hit, score in zip(head, made.scores, strict=False)]
        rows = [*read, *hits[len(read) :]]
        return [rows[at] for at in reordered(len(rows), made.scores)]

    async def _sentence_scores(self, query: str, engine: Engine, texts: Sequence[str]) -> list[float]:
        if not texts:
            return []
        if engine.reranker:
            reranker = self.library.rerankers[engine.reranker]
            scores = await self._batcher.run(reranker.network, reranker.tokens(query, texts))
            return [float(each) for each in scores]
        for ranker in reversed(engine.rankers):
            if (own := ranker.embedder) is not None:
                asked = await self._batcher.run(own.networks["query"], own.tokens([query], "query"))
                vectors = await self._batcher.run(own.networks["doc"], own.tokens(texts, "doc"))
                return [float(each) for each in vectors @ asked[0]]
        words = self.library.rankers.get(LEXICAL)
        return why.shared_words(query, texts, getattr(words.index, "lexical", None) if words else None)


def fused(runs: Sequence[Run], asked: Request, weights: Sequence[float] = ()) -> list[Hit]:
    """One list of several engines' lists; without ``weights`` all count alike."""
    if len(runs) == 1:
        return runs[0].hits()[QUERY]
    depth = max(asked.depth, asked.top)
    if asked.fuse == "rrf":
        return reciprocal_rank(runs, depth=depth).hits()[QUERY]
    return zscore_sum(runs, depth, weights or None).hits()[QUERY]
