"""``/search``, why something was found, and people's votes: this server's own interface."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Literal, Protocol

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from rerankdistill.collections.metadata import Filter
from rerankdistill.serving import search
from rerankdistill.serving.asking import check_texts, json_response, until_gone
from rerankdistill.serving.problems import Problem
from rerankdistill.serving.search import Found, Searcher
from rerankdistill.serving.settings import Settings
from rerankdistill.serving.votes import Vote, Votes
from rerankdistill.types import View

Finite = Annotated[float, Field(allow_inf_nan=False)]


class SearchRequest(BaseModel):
    """The body of ``/search``."""

    query: str
    engine: str = ""
    """Of ``/search/engines``, or put together: ``bm25 + small > reader``; empty: the first."""
    top: Annotated[int, Field(ge=1, le=1000)] = 10
    depth: Annotated[int, Field(ge=1, le=10_000)] = 100
    fuse: search.Fuse = "learned"
    """How several are fused: by z-scores, with the weights that 'rerankdistill weigh' learnt, where it did; by z-scores
    alike, or by ``weights``; by reciprocal ranks."""
    weights: Annotated[list[Finite], Field(max_length=16)] = []
    filters: Annotated[list[Filter], Field(max_length=32)] = []
    budget_ms: Annotated[float, Field(ge=0, le=60_000)] = 500.0
    rerank_depth: Annotated[int, Field(ge=1, le=1000)] = 50
    why: bool = False


class WhyRequest(BaseModel):
    """The body of ``/search/why``."""

    query: str
    engine: str = ""
    doc_ids: Annotated[list[str], Field(min_length=1, max_length=100)]


class VoteRequest(BaseModel):
    """The body of ``/judgements``."""

    query: Annotated[str, Field(min_length=1, max_length=10_000)]
    doc_id: str
    grade: Literal[-1, 0, 1]
    """1 relevant, 0 not, -1 takes the vote back."""
    engine: str = ""


class Place(Protocol):
    """Where the newest searcher stands; a request keeps to the one that it began with."""

    searcher: Searcher
    votes: Votes


def router(place: Place, settings: Settings) -> APIRouter:
    """The routes of search."""
    routes, writing = APIRouter(tags=["search"]), asyncio.Lock()

    @routes.get("/search/engines", summary="What can be searched, and by what")
    async def engines() -> Response:
        library = place.searcher.library
        about = {"collection": library.work.source.name, "documents": len(library.metadata.doc_ids)}
        fields, rerankers = library.metadata.fields, list(library.rerankers)
        return json_response(
            {**about, "engines": library.names(), "rerankers": rerankers, "fields": fields, "notes": library.notes}
        )

    @routes.post("/search", summary="Search the collection")
    async def find(request: Request, asked: SearchRequest) -> Response:
        check_query(settings, asked.query)
        searcher = place.searcher
        given = asked.model_dump(exclude={"filters", "weights", "engine"})
        engine = asked.engine or searcher.library.names()[0]
        wanted = search.Request(**given, engine=engine, weights=tuple(asked.weights), filters=tuple(asked.filters))
        found = await until_gone(request, searcher.search(wanted), settings.request_seconds)
        return json_response(told(found, searcher))

    @routes.post("/search/why", summary="The sentences for which documents were found")
    async def why(request: Request, asked: WhyRequest) -> Response:
        check_query(settings, asked.query)
        searcher = place.searcher
        if any(doc_id not in searcher.library.metadata for doc_id in asked.doc_ids):
            raise Problem(400, "doc_ids: a document that is not in the collection", "doc_ids")
        engine = asked.engine or searcher.library.names()[0]
        work = searcher.why(asked.query, engine, asked.doc_ids)
        found = await until_gone(request, work, settings.request_seconds)
        return json_response({"why": {doc_id: spans_of(spans) for doc_id, spans in found.items()}})

    @routes.post("/judgements", summary="A person's word on a result")
    async def vote(asked: VoteRequest) -> Response:
        votes = place.votes
        async with writing:
            count = await asyncio.to_thread(votes.add, Vote(asked.query, asked.doc_id, asked.grade, asked.engine))
        return json_response({"judged": count, "collection": str(votes.folder.name)})

    return routes


def check_query(settings: Settings, query: str) -> None:
    """Raise Problem: an empty query, or one that is too long."""
    if not query.strip():
        raise Problem(400, "query: there is no word in it", "query")
    check_texts(settings, "query", [query])


def told(found: Found, searcher: Searcher) -> dict[str, Any]:
    """The body of an answer of ``/search``. ``why`` counts characters of ``text``."""
    source, metadata = searcher.library.work.source, searcher.library.metadata
    ids = [hit.doc_id for hit in found.hits]
    bodies, whole = source.texts(ids, View.TEXT), source.texts(ids, View.TITLE_TEXT)
    hits = []
    for rank, (hit, text, full) in enumerate(zip(found.hits, bodies, whole, strict=True), 1):
        row: dict[str, Any] = {"rank": rank, "doc_id": hit.doc_id, "score": hit.score}
        row |= {"title": full.removesuffix(text.strip()).strip() if text.strip() else full, "text": text}
        row |= {"metadata": metadata.of(hit.doc_id), "reranked": rank <= found.read}
        if hit.doc_id in found.why:
            row["why"] = spans_of(found.why[hit.doc_id])
        hits.append(row)
    about = {"engine": found.engine, "latency_ms": found.latency_ms, "notes": found.notes, "weights": found.weights}
    return {**about, "reranked": found.read, "stopped_early": found.stopped_early, "hits": hits}


def spans_of(spans: list[tuple[Any, float]]) -> list[dict[str, float]]:
    return [{"start": span.start, "end": span.end, "score": score} for span, score in spans]
