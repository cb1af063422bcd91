"""The application: routes, gate and watcher around an engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

from fastapi import APIRouter, FastAPI
from fastapi.middleware.cors import CORSMiddleware

from rerankdistill import __version__
from rerankdistill.serving.api import cohere, openai, operating, tei
from rerankdistill.serving.engine import Engine
from rerankdistill.serving.gate import Gate
from rerankdistill.serving.heap import settle
from rerankdistill.serving.measures import Measures
from rerankdistill.serving.opening import Students
from rerankdistill.serving.problems import add_handlers
from rerankdistill.serving.protocol import SECONDS
from rerankdistill.serving.settings import Settings
from rerankdistill.serving.watching import Watched, Watcher

ABOUT = "Embeddings and re-ranking by distilled students, in the interfaces that clients already speak."


def create_app(
    engine: Engine,
    settings: Settings,
    routers: Sequence[APIRouter] = (),
    open_paths: frozenset[str] = frozenset(),
    watched: Sequence[Watched] = (),
) -> FastAPI:
    """An ASGI application.

    Args:
        routers: further routes, which ask the engine by ``await engine.embed(…)`` and ``await engine.rerank(…)``.
        open_paths: those of their paths that need no API key, because they hold nothing: a page and its files.
        watched: what is replaced while it is served, beside the students.
    """
    measures = Measures()
    measures.watch(engine.batcher)
    watcher = Watcher([Students(engine, settings), *watched], settings.poll, measures)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, float]]:
        settle()
        watching = asyncio.create_task(watcher.watch())
        try:
            yield {SECONDS: settings.header_seconds}
        finally:
            watching.cancel()
            with suppress(asyncio.CancelledError):
                await watching
            engine.close()

    app = FastAPI(title="rerankdistill", description=ABOUT, version=__version__, lifespan=lifespan)
    app.state.engine, app.state.watcher = engine, watcher
    for room in (openai, cohere, tei):
        app.include_router(room.router(engine, settings))
    app.include_router(operating.router(engine, settings, measures, watcher))
    for router in routers:
        app.include_router(router)
    add_handlers(app)
    if settings.cors:
        headers = ["Authorization", "Content-Type"]
        origins = list(settings.cors)
        app.add_middleware(CORSMiddleware, allow_origins=origins, allow_methods=["GET", "POST"], allow_headers=headers)
    app.add_middleware(Gate, settings=settings, measures=measures, open_paths=open_paths)
    return app
