"""Search joined to a server: routes and page, where the served folder has indexes."""

from __future__ import annotations

import logging

from fastapi import APIRouter

from rerankdistill.errors import RerankDistillError
from rerankdistill.serving.api import page, searching
from rerankdistill.serving.engine import Engine
from rerankdistill.serving.library import can_open, open_library
from rerankdistill.serving.search import Searcher
from rerankdistill.serving.settings import Settings
from rerankdistill.serving.votes import Votes

LOG = logging.getLogger("rerankdistill.serving")


def search_routes(engine: Engine, settings: Settings) -> tuple[list[APIRouter], frozenset[str]]:
    """The routes of search and of its page, and their paths that need no key; none for a student's own folder.

    A folder that cannot be searched is served all the same, and the log says why; unless a collection was named.
    """
    root = settings.place.expanduser()
    if not settings.collection and not can_open(root):
        return [], frozenset()
    embedder = engine.models.embedder
    try:
        library = open_library(root, settings.collection, settings.device, [embedder] if embedder else [])
    except RerankDistillError as error:
        if settings.collection:
            raise
        LOG.warning("no search", extra={"about": {"why": error.what, "fix": error.fix}})
        return [], frozenset()
    for note in library.notes:
        LOG.info("left out of search", extra={"about": {"why": note}})
    searcher = Searcher(library, engine.batcher)
    return [searching.router(searcher, Votes(root, library.work.source), settings), page.router()], page.OPEN_PATHS
