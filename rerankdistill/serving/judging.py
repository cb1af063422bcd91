"""The page on which a person judges pairs: three routes and a file, for this machine alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Protocol

from fastapi import Body, FastAPI, HTTPException
from fastapi.middleware.trustedhost import TrustedHostMiddleware
from fastapi.responses import FileResponse

from rerankdistill.errors import RerankDistillError

PAGE = Path(__file__).with_name("page") / "judge.html"
LOOPBACK = ["127.0.0.1", "localhost", "[::1]", "testserver"]


class Judged(Protocol):
    """A session of judging, as the page asks it."""

    def next(self) -> Any: ...

    def shown(self, pair: Any) -> dict[str, Any]: ...

    def answer(self, query_id: str, doc_id: str, grade: int | None) -> None: ...

    def undo(self) -> bool: ...

    def verdict(self) -> str: ...


def create_app(session: Judged) -> FastAPI:
    """An application that asks about one pair after the other. It answers the loopback's names alone, and takes JSON
    alone, so that no other site's page can answer in the person's place."""
    app = FastAPI(title="rerankdistill judge", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=LOOPBACK)

    def state() -> dict[str, Any]:
        pair = session.next()
        return {"pair": None if pair is None else session.shown(pair), "verdict": session.verdict()}

    @app.get("/")
    def page() -> FileResponse:
        return FileResponse(PAGE, headers={"Content-Security-Policy": "default-src 'self' 'unsafe-inline'"})

    @app.get("/pair")
    def pair() -> dict[str, Any]:
        return state()

    @app.post("/answer")
    def answer(
        query_id: Annotated[str, Body()], doc_id: Annotated[str, Body()], grade: Annotated[int | None, Body()] = None
    ) -> dict[str, Any]:
        try:
            session.answer(query_id, doc_id, grade)
        except RerankDistillError as error:
            raise HTTPException(422, str(error)) from error
        return state()

    @app.post("/undo")
    def undo(sure: Annotated[bool, Body(embed=True)]) -> dict[str, Any]:
        if sure:
            session.undo()
        return state()

    return app


def serve(session: Judged, port: int) -> None:
    """Serve the page on the loopback until Ctrl-C."""
    import uvicorn

    uvicorn.run(create_app(session), host="127.0.0.1", port=port, log_level="warning")
