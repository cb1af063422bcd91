"""``/v1/rerank`` and ``/v2/rerank``, as Cohere's and Jina's clients ask them.

A cross-encoder's score is told as a probability (the sigmoid of its logit), a bi-encoder's as its similarity.
"""

from __future__ import annotations

import uuid
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from rerankdistill.serving.asking import check_texts, json_response, until_gone
from rerankdistill.serving.engine import Answer, Engine
from rerankdistill.serving.settings import Settings
from rerankdistill.types import FloatArray


class Document(BaseModel):
    """A document with more to it than its text."""

    model_config = ConfigDict(extra="allow")

    text: str


class RerankRequest(BaseModel):
    """The body of both versions."""

    query: str
    documents: list[str | Document]
    model: str = ""
    top_n: Annotated[int, Field(ge=1)] | None = None
    return_documents: bool = False


def router(engine: Engine, settings: Settings) -> APIRouter:
    """The routes of Cohere's and Jina's interface."""
    routes = APIRouter(tags=["Cohere, Jina"])

    async def rerank(request: Request, asked: RerankRequest, version: str) -> Response:
        texts = [each if isinstance(each, str) else each.text for each in asked.documents]
        check_texts(settings, "documents", texts)
        check_texts(settings, "query", [asked.query])
        found = await until_gone(request, engine.rerank(asked.query, texts), settings.request_seconds)
        scores, order = told(found), ordered(found.values)[: asked.top_n]
        results: list[dict[str, Any]] = [{"index": at, "relevance_score": scores[at]} for at in order]
        if asked.return_documents:
            for row in results:
                row["document"] = {"text": texts[row["index"]]}
        meta = {"api_version": {"version": version}, "billed_units": {"search_units": 1}}
        usage = {"total_tokens": found.tokens, "prompt_tokens": found.tokens}
        about = {"id": str(uuid.uuid4()), "model": found.model, "usage": usage, "meta": meta}
        return json_response({"results": results, **about})

    @routes.post("/v1/rerank", summary="Order documents for a query")
    async def rerank_1(request: Request, asked: RerankRequest) -> Response:
        return await rerank(request, asked, "1")

    @routes.post("/v2/rerank", summary="Order documents for a query")
    async def rerank_2(request: Request, asked: RerankRequest) -> Response:
        return await rerank(request, asked, "2")

    return routes


def told(found: Answer, raw: bool = False) -> list[float]:
    """Scores as clients read them: of logits the sigmoid, in float64 so that large ones stay apart."""
    if found.unit or raw:
        return [float(value) for value in found.values]
    from scipy.special import expit

    return [float(value) for value in expit(found.values.astype(np.float64))]


def ordered(scores: FloatArray) -> list[int]:
    """The rows of ``[n]`` scores, highest first; equal ones as they came."""
    return [int(at) for at in np.argsort(-scores, kind="stable")]
