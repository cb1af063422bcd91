"""A new student in the place of the old one is noticed, opened, tried and then served, without a request being dropped.

The folder is the truth: whoever publishes a student writes it beside its place and renames it, as every step of a
pipeline does, and each worker finds it by itself. A student that is missing, half-written, damaged or fails when it is
tried is refused, and the old one goes on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np

from rerankdistill.errors import DataError, RerankDistillError
from rerankdistill.serving.engine import Engine
from rerankdistill.serving.measures import Measures
from rerankdistill.serving.model import Models
from rerankdistill.serving.opening import find, load_models
from rerankdistill.serving.settings import Settings

LOG = logging.getLogger("rerankdistill.serving")
Signature = tuple[tuple[str, int, int, int], ...]


class Watcher:
    """Looks after the place of the served students.

    Attributes:
        state: ``ready``, or ``draining`` once the server is told to stop.
        refused: why the newest student was not taken; empty when it was.
    """

    def __init__(
        self,
        engine: Engine,
        settings: Settings,
        measures: Measures,
        load: Callable[[Settings], Models] = load_models,
    ) -> None:
        self.state, self.refused = "ready", ""
        self._engine, self._settings, self._measures, self._load = engine, settings, measures, load
        self._served = self._seen = signature(settings)
        self._busy = asyncio.Lock()

    async def watch(self) -> None:
        """Look every few seconds, until cancelled."""
        while True:
            await asyncio.sleep(self._settings.poll)
            await self.look()

    async def look(self, now: bool = False) -> bool:
        """Take a new student, if there is one that has lain still since the last look, or ``now``; whether it did."""
        async with self._busy:
            found = await asyncio.to_thread(signature, self._settings)
            still, self._seen = found == self._seen, found
            if not found or found == self._served or not (still or now):
                return False
            self._served = found  # one that is refused is not tried again until it changes
            return await self._take(found)

    async def _take(self, found: Signature) -> bool:
        try:
            models = await asyncio.to_thread(self._load, self._settings)
            if models.mark == self._engine.models.mark:
                self.refused = ""
                return False
            await asyncio.to_thread(attempt, models)
            if await asyncio.to_thread(signature, self._settings) != found:
                self._served = ()  # it changed while it was opened, and may be half of each: the next look tries again
                return False
        except Exception as error:  # a damaged folder makes its libraries raise whatever they like
            self.refused = (str(getattr(error, "what", error)) or type(error).__name__).splitlines()[0][:200]
            self._measures.swaps.labels("refused").inc()
            LOG.warning("student refused", extra={"about": {"why": self.refused}})
            return False
        self._engine.swap(models)
        self.refused = ""
        self._measures.swaps.labels("taken").inc()
        LOG.info("student taken", extra={"about": {"model": models.name, "fingerprint": models.fingerprint}})
        return True


def signature(settings: Settings) -> Signature:
    """Changes when a file of a served student does; empty while there is nothing whole to serve."""
    try:
        folders = [place.path for place in find(settings.place.expanduser(), settings.student) if place]
        return tuple(sorted(line for folder in folders for line in _lines(folder)))
    except (RerankDistillError, OSError):
        return ()


def _lines(folder: Path) -> list[tuple[str, int, int, int]]:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return [(str(path), (on := path.stat()).st_ino, on.st_size, on.st_mtime_ns) for path in paths]


def attempt(models: Models) -> None:
    """Let new models read something, in this thread.

    Raises:
        DataError: what they say is not finite.
    """
    found = []
    if models.embedder:
        for role in models.embedder.networks:
            found.append(models.embedder.networks[role](models.embedder.tokens(["a text", "another one"], role)))
    if models.reranker:
        found.append(models.reranker.network(models.reranker.tokens("a query", ["a text", "another one"])))
    if not all(np.isfinite(each).all() for each in found):
        raise DataError("what the student says is not a number", fix="train or publish it again")
