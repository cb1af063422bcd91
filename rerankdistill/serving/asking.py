"""What every route does alike: bounds on what is asked, the wait for the answer, and JSON out of arrays."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

import orjson
from fastapi import Request
from starlette.responses import Response

from rerankdistill.serving.problems import GONE, Problem
from rerankdistill.serving.settings import Settings

T = TypeVar("T")


def check_texts(settings: Settings, name: str, texts: Sequence[str]) -> None:
    """Refuse no texts, too many and too long ones.

    Raises:
        Problem: which, by the name of the request's field.
    """
    if not texts:
        raise Problem(400, f"{name}: there is no text in it", name)
    if len(texts) > settings.max_texts:
        raise Problem(413, f"{name}: {len(texts)} texts; this server takes {settings.max_texts} at once", name)
    longest = max(map(len, texts))
    if longest > settings.max_chars:
        what = f"{name}: a text of {longest} characters; this server takes {settings.max_chars}"
        raise Problem(413, what, name)


async def until_gone(request: Request, work: Coroutine[Any, Any, T], seconds: float) -> T:
    """The result of ``work``, which is cancelled when the client leaves or ``seconds`` have passed: its texts leave the
    queue.

    Raises:
        Problem: it was cancelled.
    """
    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait({task, gone}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        if gone.done():
            raise Problem(GONE, "the client left")
        raise Problem(503, f"not answered within {seconds:g} s; ask again later", retry=1.0)
    finally:
        gone.cancel()
        task.cancel()


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def json_response(content: Any) -> Response:
    """JSON of a structure that may hold numpy arrays."""
    return Response(orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY), media_type="application/json")
