"""``/v1/embeddings`` and ``/v1/models`` as OpenAI's clients ask them.

Beyond OpenAI's own fields ``input_type`` says whether texts are queries or documents, where a student reads the two
differently (Cohere's and Voyage's name for it); the default is documents.
"""

from __future__ import annotations

import base64
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Request
from pydantic import BaseModel, Field, field_validator
from starlette.responses import Response

from rerankdistill.contracts import Role
from rerankdistill.serving.asking import check_texts, json_response, until_gone
from rerankdistill.serving.engine import Engine
from rerankdistill.serving.problems import Problem
from rerankdistill.serving.settings import Settings
from rerankdistill.types import FloatArray

ROLES: dict[str | None, Role] = {"query": "query", "search_query": "query"}
"""How clients call a query; everything else is a document."""


class EmbeddingsRequest(BaseModel):
    """The body of ``/v1/embeddings``."""

    input: str | list[str]
    model: str = ""
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[int, Field(ge=1)] | None = None
    """The first so many numbers, made one long again: for students that were trained to be cut."""
    user: str | None = None
    input_type: Literal["query", "document", "passage", "search_query", "search_document"] | None = None

    @field_validator("input", mode="before")
    @classmethod
    def _no_tokens(cls, given: Any) -> Any:
        if isinstance(given, list) and any(isinstance(each, int | list) for each in given):
            raise ValueError(
                "token ids are those of OpenAI's vocabulary; send texts (LangChain: check_embedding_ctx_length=False)"
            )
        return given


def router(engine: Engine, settings: Settings) -> APIRouter:
    """The routes of OpenAI's interface."""
    routes = APIRouter(tags=["OpenAI"])

    @routes.post("/v1/embeddings", summary="Vectors of texts")
    async def embeddings(request: Request, asked: EmbeddingsRequest) -> Response:
        texts = [asked.input] if isinstance(asked.input, str) else asked.input
        check_texts(settings, "input", texts)
        role = ROLES.get(asked.input_type, "doc")
        found = await until_gone(request, engine.embed(texts, role), settings.request_seconds)
        vectors = cut(found.values, asked.dimensions, found.unit)
        rows: Any = [packed(row) for row in vectors] if asked.encoding_format == "base64" else vectors
        data = [{"object": "embedding", "index": at, "embedding": row} for at, row in enumerate(rows)]
        usage = {"prompt_tokens": found.tokens, "total_tokens": found.tokens}
        return json_response({"object": "list", "data": data, "model": found.model, "usage": usage})

    @routes.get("/v1/models", summary="What is served")
    async def models() -> Response:
        served = [each.name for each in (engine.models.embedder, engine.models.reranker) if each]
        data = [{"id": name, "object": "model", "created": 0, "owned_by": "rerankdistill"} for name in served]
        return json_response({"object": "list", "data": data})

    return routes


def cut(vectors: FloatArray, dimensions: int | None, unit: bool) -> FloatArray:
    """The first ``dimensions`` columns of ``[n, d]``, of length one again where the whole was.

    Raises:
        Problem: there are fewer.
    """
    if dimensions is None or dimensions == vectors.shape[1]:
        return vectors
    if dimensions > vectors.shape[1]:
        raise Problem(400, f"dimensions: this student's vectors have {vectors.shape[1]}", "dimensions")
    short = np.ascontiguousarray(vectors[:, :dimensions])
    return short / np.maximum(np.linalg.norm(short, axis=1, keepdims=True), 1e-12) if unit else short


def packed(vector: FloatArray) -> str:
    """A vector's float32 in base64, little end first."""
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()
