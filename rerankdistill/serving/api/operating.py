"""What whoever runs the server asks: is it alive, is it ready, how does it do, and look for a new student now."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import Response

from rerankdistill.serving.asking import json_response
from rerankdistill.serving.engine import Engine
from rerankdistill.serving.measures import Measures
from rerankdistill.serving.problems import Problem
from rerankdistill.serving.settings import Settings
from rerankdistill.serving.watching import Watcher


def router(engine: Engine, settings: Settings, measures: Measures, watcher: Watcher) -> APIRouter:
    """The routes of operation."""
    routes = APIRouter(tags=["operation"])
    keyed = bool(settings.keys())

    @routes.get("/healthz", summary="Whether the process answers")
    async def healthz() -> Response:
        return json_response({"status": "ok"})

    @routes.get("/readyz", summary="Whether to send requests: not while draining, nor with a full queue")
    async def readyz() -> Response:
        state = watcher.state
        if state == "ready" and engine.batcher.waiting >= settings.max_queue:
            state = "full"
        response = json_response({"status": state, **about(engine, watcher)})
        response.status_code = 200 if state == "ready" else 503
        return response

    @routes.get("/metrics", summary="For Prometheus")
    async def metrics() -> Response:
        return Response(measures.text(), media_type=CONTENT_TYPE_LATEST)

    @routes.post("/admin/swap", summary="Look for a new student at the same place now")
    async def swap() -> Response:
        if not keyed:
            raise Problem(403, "this needs a server with API keys; without them a new student is found by itself")
        swapped = await watcher.look(now=True)
        return json_response({"swapped": swapped, **about(engine, watcher)})

    return routes


def about(engine: Engine, watcher: Watcher) -> dict[str, Any]:
    """Who answers, and what was wrong with the last one that was to."""
    return {"model": engine.models.name, "fingerprint": engine.models.fingerprint, "refused": watcher.refused}
