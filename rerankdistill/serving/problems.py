"""One clear error for everything that a client can do wrong, in the form of the interface that it speaks."""

from __future__ import annotations

import math
from typing import Any

import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from rerankdistill.errors import RerankDistillError
from rerankdistill.serving.batcher import Busy

COHERE = frozenset({"/v1/rerank", "/v2/rerank"})
TEI = frozenset({"/", "/embed", "/rerank", "/info"})
"""Whose errors a path speaks; every other path speaks OpenAI's."""

GONE = 499
"""The client left; nobody reads this status but the log."""
SHORT = 200
"""Characters of a message: it quotes no text of a user."""

KINDS = {
    400: ("invalid_request_error", "Validation"),
    401: ("authentication_error", "Unauthorized"),
    403: ("permission_error", "Forbidden"),
    404: ("not_found_error", "NotFound"),
    405: ("invalid_request_error", "Validation"),
    408: ("timeout_error", "Backend"),
    413: ("invalid_request_error", "Validation"),
    422: ("invalid_request_error", "Validation"),
    429: ("rate_limit_error", "Overloaded"),
    500: ("server_error", "Backend"),
    503: ("overloaded_error", "Overloaded"),
}
"""What a status is called by OpenAI and by text-embeddings-inference."""


class Problem(HTTPException):
    """An answer that is an error.

    FastAPI lets an ``HTTPException`` through where it reads a body, and takes any other for a body that makes no sense.

    Args:
        param: the field of the request that is wrong.
        retry: seconds after which it is worth to ask again.
    """

    def __init__(self, status: int, message: str, param: str | None = None, retry: float | None = None) -> None:
        self.status, self.message, self.param, self.retry = status, message, param, retry
        super().__init__(status, message)


def render(path: str, problem: Problem) -> Response:
    """The problem as the interface of this path tells it."""
    openai, tei = KINDS.get(problem.status, KINDS[500 if problem.status >= 500 else 400])
    status = problem.status
    body: dict[str, Any]
    if path in COHERE:
        body = {"message": problem.message, "detail": problem.message}  # Jina's clients read the second
    elif path in TEI:
        status = 422 if status == 400 else status
        body = {"error": problem.message, "error_type": tei}
    else:
        about = {"message": problem.message, "type": openai, "param": problem.param, "code": None}
        body = {"error": about}
    headers = {} if problem.retry is None else {"Retry-After": str(max(1, math.ceil(problem.retry)))}
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return Response(orjson.dumps(body), status, headers, "application/json")


def add_handlers(app: FastAPI) -> None:
    """Let the app turn the exceptions that are meant for a client into problems; the gate sees to all others."""

    async def told(request: Request, error: Exception) -> Response:
        return render(request.url.path, as_problem(error))

    for kind in (Problem, Busy, RequestValidationError, HTTPException, RerankDistillError):
        app.add_exception_handler(kind, told)


def as_problem(error: Exception) -> Problem:
    """What to tell a client of an exception; of an unexpected one nothing but that it happened."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, Busy):
        return Problem(429, "the server has as many texts waiting as it takes; ask again later", retry=error.seconds)
    if isinstance(error, RequestValidationError):
        return _of_validation(error)
    if isinstance(error, HTTPException):
        return Problem(error.status_code, str(error.detail))
    if isinstance(error, RerankDistillError):
        return Problem(400, f"{error.what}: {error.fix}" if error.fix else error.what)
    return Problem(500, "the server failed; its log says how")


def _of_validation(error: RequestValidationError) -> Problem:
    """The first fault of a request, by its place and rule: pydantic's own list quotes what was sent."""
    first: dict[str, Any] = error.errors()[0]
    place = [str(part) for part in first.get("loc", ())][1:]  # after "body" or "query"
    if first.get("type") == "json_invalid":
        return Problem(400, "the body is not JSON")
    named = place[0] if place and not place[0].isdigit() else "body"
    rule = str(first.get("msg", "not valid")).removeprefix("Value error, ")
    return Problem(400, f"{named}: {rule}"[:SHORT], named)
