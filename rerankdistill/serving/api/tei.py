"""``/embed``, ``/rerank`` and ``/info`` as clients of Hugging Face's text-embeddings-inference ask them."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from fastapi import APIRouter, Request
from pydantic import BaseModel
from starlette.responses import Response

from rerankdistill import __version__
from rerankdistill.contracts import Role
from rerankdistill.serving.api.cohere import ordered, told
from rerankdistill.serving.api.openai import cut
from rerankdistill.serving.asking import check_texts, json_response, until_gone
from rerankdistill.serving.engine import Engine
from rerankdistill.serving.problems import Problem
from rerankdistill.serving.settings import Settings


class EmbedRequest(BaseModel):
    """The body of ``/embed``."""

    inputs: str | list[str]
    normalize: bool | None = None
    """None: as the student compares them."""
    truncate: bool | None = None
    """False refuses texts that are too long; they are cut otherwise."""
    truncation_direction: Literal["right", "Right"] | None = None
    prompt_name: Literal["query", "document", "passage"] | None = None
    dimensions: int | None = None


class RerankRequest(BaseModel):
    """The body of ``/rerank``."""

    query: str
    texts: list[str]
    raw_scores: bool = False
    return_text: bool = False
    truncate: bool | None = None
    truncation_direction: Literal["right", "Right"] | None = None


def router(engine: Engine, settings: Settings) -> APIRouter:
    """The routes of text-embeddings-inference."""
    routes = APIRouter(tags=["text-embeddings-inference"])

    @routes.post("/embed", summary="Vectors of texts")
    async def embed(request: Request, asked: EmbedRequest) -> Response:
        texts = [asked.inputs] if isinstance(asked.inputs, str) else asked.inputs
        check_texts(settings, "inputs", texts)
        if asked.dimensions is not None and asked.dimensions < 1:
            raise Problem(400, "dimensions: at least 1", "dimensions")
        role: Role = "query" if asked.prompt_name == "query" else "doc"
        if asked.truncate is False:
            refuse_long(engine, texts, role)
        found = await until_gone(request, engine.embed(texts, role), settings.request_seconds)
        if found.unit and asked.normalize is False:
            raise Problem(400, "normalize: this student's vectors have length one", "normalize")
        vectors = cut(found.values, asked.dimensions, found.unit or asked.normalize is True)
        if asked.normalize and not found.unit:
            vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        return json_response(list(vectors))

    routes.post("/", summary="The same as /embed", include_in_schema=False)(embed)

    @routes.post("/rerank", summary="Order texts for a query")
    async def rerank(request: Request, asked: RerankRequest) -> Response:
        check_texts(settings, "texts", asked.texts)
        check_texts(settings, "query", [asked.query])
        found = await until_gone(request, engine.rerank(asked.query, asked.texts), settings.request_seconds)
        scores = told(found, asked.raw_scores)
        rows: list[dict[str, Any]] = [{"index": at, "score": scores[at]} for at in ordered(found.values)]
        if asked.return_text:
            for row in rows:
                row["text"] = asked.texts[row["index"]]
        return json_response(rows)

    @routes.get("/info", summary="What is served, and its limits")
    async def info() -> Response:
        return json_response(about(engine, settings))

    return routes


def refuse_long(engine: Engine, texts: list[str], role: Role) -> None:
    """Raise Problem where a text would be cut."""
    model = engine.models.embedder
    if model is None:
        return
    limit = model.max_tokens[role]
    counts = [len(ids) for ids in model.tokenizers[role]([model.prompts.get(role, "") + t for t in texts])["input_ids"]]
    if max(counts) > limit:
        raise Problem(400, f"inputs: a text has {max(counts)} tokens, the student reads {limit}", "inputs")


def about(engine: Engine, settings: Settings) -> dict[str, Any]:
    """The body of ``/info``."""
    embedder, reranker = engine.models.embedder, engine.models.reranker
    kind: dict[str, Any] = {"embedding": {"pooling": "mean"}} if embedder else {}
    if not embedder:
        kind = {"reranker": {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}}
    length = max(embedder.max_tokens.values()) if embedder else reranker.max_tokens if reranker else 0
    first = embedder or reranker
    return {
        "model_id": engine.models.name,
        "model_sha": engine.models.fingerprint,
        "model_dtype": first.backend if first else "",
        "model_type": kind,
        "reranker_id": reranker.name if reranker else None,
        "dimension": embedder.dimension if embedder else None,
        "max_concurrent_requests": settings.max_requests,
        "max_input_length": length,
        "max_batch_tokens": engine.batcher.batch_tokens,
        "max_client_batch_size": settings.max_texts,
        "auto_truncate": True,
        "version": __version__,
    }
