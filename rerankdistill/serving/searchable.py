"""Search joined to a server: routes and page, where the served folder has indexes, and what becomes of the folder."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from typing import NamedTuple

from fastapi import APIRouter

from rerankdistill import devices
from rerankdistill.artifacts import MANIFEST
from rerankdistill.collections.work import WORK
from rerankdistill.errors import RerankDistillError, StaleArtifact
from rerankdistill.serving.api import page, searching
from rerankdistill.serving.engine import Engine
from rerankdistill.serving.library import Library, can_open, open_library
from rerankdistill.serving.search import Searcher
from rerankdistill.serving.settings import Settings
from rerankdistill.serving.votes import Votes
from rerankdistill.serving.watching import Signature, Watched, lines
from rerankdistill.serving.weights import FILE

LOG = logging.getLogger("rerankdistill.serving")


class Part(NamedTuple):
    """What an application is given for search, as :func:`rerankdistill.serving.app.create_app` calls it."""

    routers: tuple[APIRouter, ...] = ()
    open_paths: frozenset[str] = frozenset()
    watched: tuple[Watched, ...] = ()


class Searched:
    """The work folder that is searched, as :class:`rerankdistill.serving.watching.Watched`.

    Attributes:
        searcher: answers from one state of the folder; another takes its place when the documents, their indexes, the
            students or what 'weigh' learnt have changed, and a search ends with the one that it began with.
        votes: on the same documents.
    """

    what = "search"

    def __init__(self, engine: Engine, settings: Settings) -> None:
        self._engine, self._settings = engine, settings
        self._root = settings.place.expanduser()
        self.searcher = Searcher(self._library(), engine.batcher)
        self.votes = self._votes()

    def signature(self) -> Signature:
        """Of manifests alone: a folder with one is whole."""
        corpus: Path | None = getattr(self.searcher.library.work.source, "corpus", None)
        paths = [self._root / WORK, self._root / FILE, *([corpus] if corpus else [])]
        found = [path for room in ("indexes", "students") for path in self._root.glob(f"{room}/[!.]*/{MANIFEST}")]
        try:
            return tuple(lines([*paths, *sorted(found)]))
        except OSError:  # it is being written just now
            return ()

    def open(self) -> Library:
        """The folder as it is now.

        Raises:
            StaleArtifact: an engine is missing that answers now. While documents change, their indexes are brought up
                to them one after the other: until the last one is, the state before goes on.
        """
        before, now = self.searcher.library, self._library(self.searcher.library)
        there = {*now.rankers, *now.rerankers}
        if lost := [name for name in (*before.rankers, *before.rerankers) if name not in there]:
            what = f"{', '.join(lost)} cannot be opened any more: {'; '.join(now.notes)}"
            raise StaleArtifact(what, where=str(self._root), fix="update its index, or restart the server")
        return now

    def take(self, opened: Library) -> dict[str, str]:
        self.searcher = Searcher(opened, self._engine.batcher)
        self.votes = self._votes()
        return {"documents": str(len(opened.metadata.doc_ids)), "engines": ", ".join(opened.names())}

    def _library(self, before: Library | None = None) -> Library:
        settings, served = self._settings, self._engine.models
        there = partial(open_library, self._root, settings.collection, settings.device)
        return devices.apart(partial(there, served=served, before=before, cores=settings.cores))

    def _votes(self) -> Votes:
        return Votes(self._root, self.searcher.library.work.source)


def search_routes(engine: Engine, settings: Settings) -> Part:
    """The routes of search and of its page; none for a student's own folder.

    A folder that cannot be searched is served all the same, and the log says why; unless a collection was named.
    """
    if not settings.collection and not can_open(settings.place.expanduser()):
        return Part()
    try:
        searched = Searched(engine, settings)
    except RerankDistillError as error:
        if settings.collection:
            raise
        LOG.warning("no search", extra={"about": {"why": error.what, "fix": error.fix}})
        return Part()
    for note in searched.searcher.library.notes:
        LOG.info("left out of search", extra={"about": {"why": note}})
    return Part((searching.router(searched, settings), page.router()), page.OPEN_PATHS, (searched,))
