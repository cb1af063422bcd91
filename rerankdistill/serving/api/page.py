"""The page: three files that hold nothing secret and ask this server alone."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib.resources import files

from fastapi import APIRouter
from starlette.responses import RedirectResponse, Response

PLACE = "/page"
FILES = {
    PLACE: ("index.html", "text/html; charset=utf-8"),
    f"{PLACE}/page.css": ("page.css", "text/css; charset=utf-8"),
    f"{PLACE}/page.js": ("page.js", "text/javascript; charset=utf-8"),
    f"{PLACE}/icon.svg": ("icon.svg", "image/svg+xml"),
}
OPEN_PATHS = frozenset(FILES)
"""What a browser may fetch before it has an API key to ask with."""
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def router() -> APIRouter:
    """The routes of the page; ``/`` leads to it."""
    routes = APIRouter(include_in_schema=False)
    for path, (name, kind) in FILES.items():
        content = files("rerankdistill.serving").joinpath("page", name).read_bytes()
        routes.get(path)(_answer(content, kind))
    routes.get("/")(_redirect)
    return routes


def _answer(content: bytes, kind: str) -> Callable[[], Awaitable[Response]]:
    async def answer() -> Response:
        return Response(content, headers=HEADERS, media_type=kind)

    return answer


async def _redirect() -> Response:
    return RedirectResponse(PLACE)
