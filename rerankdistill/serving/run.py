"""The server's process: one, or several workers behind one socket, from start to drained end."""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
from typing import Any

import uvicorn
from fastapi import FastAPI

from rerankdistill.serving import journal
from rerankdistill.serving.app import create_app
from rerankdistill.serving.engine import Engine
from rerankdistill.serving.measures import SHARED
from rerankdistill.serving.searchable import search_routes
from rerankdistill.serving.settings import Settings

TOLD = "RERANKDISTILL_SERVE"
"""The environment variable by which workers are told their settings. It holds no key."""


class Server(uvicorn.Server):
    """uvicorn's, which says by ``/readyz`` that it drains."""

    def handle_exit(self, sig: int, frame: Any) -> None:
        app = getattr(self.config, "served", None)
        if app is not None:
            app.state.watcher.state = "draining"
        super().handle_exit(sig, frame)


SWITCH = 0.0005
"""Seconds after which a thread that wants Python's lock gets it. Models want it for a moment between two long products;
the default of 5 ms would have a core stand idle for as long."""


SPIN = "5000"
"""How often a thread of OpenMP looks for work before it sleeps: for some tenth of a millisecond. So few fall asleep
between two matrices of a text alone, where to wake one takes as long as the next matrix; more would cost others the
core."""


def assemble(settings: Settings) -> FastAPI:
    """The whole application of a worker: engine and routes, those of search where the folder has indexes."""
    sys.setswitchinterval(SWITCH)
    engine = Engine.load(settings)
    return create_app(engine, settings, *search_routes(engine, settings))


def worker() -> FastAPI:
    """The application of a worker process, which reads its settings from the environment."""
    return assemble(Settings.model_validate_json(os.environ[TOLD]))


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; what is being answered then gets ``drain_seconds``."""
    os.environ.setdefault("GOMP_SPINCOUNT", SPIN)  # is read when torch is imported
    if settings.workers > 1:
        with tempfile.TemporaryDirectory(prefix="rerankdistill-metrics-") as shared:
            os.environ |= {TOLD: settings.model_dump_json(), SHARED: shared}
            uvicorn.run(f"{__name__}:worker", factory=True, workers=settings.workers, **options(settings))
        return
    app = assemble(settings)
    config = uvicorn.Config(app, **options(settings))
    config.served = app  # type: ignore[attr-defined]
    Server(config).run()


def options(settings: Settings) -> dict[str, Any]:
    """What uvicorn is told."""
    return {
        "host": settings.host,
        "port": settings.port,
        "http": "rerankdistill.serving.protocol:Punctual",
        "log_config": journal.config(),
        "access_log": False,
        "server_header": False,
        "timeout_keep_alive": 30,
        "timeout_graceful_shutdown": int(settings.drain_seconds) or 1,
        "loop": "uvloop" if importlib.util.find_spec("uvloop") else "asyncio",  # it is not there on Windows
        "lifespan": "on",
    }
