"""What is served is replaced when something new lies in its place, without a request being dropped.

The folder is the truth: whoever publishes a student or updates an index writes it beside its place and renames it, as
every step of a pipeline does, and each worker finds it by itself. It is opened and tried first; what is missing,
half-written, damaged or fails is refused, and the old one goes on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from rerankdistill.serving.heap import settle
from rerankdistill.serving.measures import Measures

LOG = logging.getLogger("rerankdistill.serving")
Signature = tuple[tuple[str, int, int, int], ...]


class Watched(Protocol):
    """Something in folders that is served: :class:`rerankdistill.serving.opening.Students`, and
    :class:`rerankdistill.serving.searchable.Searched`."""

    what: str
    """For the log and the metrics."""

    def signature(self) -> Signature:
        """Changes when a file of it does; empty while there is nothing whole to serve."""

    def open(self) -> Any:
        """What lies there now, tried, in a thread; None: the same as is served. Raises what its libraries do."""

    def take(self, opened: Any) -> dict[str, str]:
        """Serve it from now on, in the event loop; gives what the log shall say of it."""


@dataclass
class Place:
    """What one of the watched was like when it was served, and last seen; and why the newest was ``refused``."""

    watched: Watched
    served: Signature
    seen: Signature
    refused: str = ""


class Watcher:
    """Looks after the places of what is served.

    Attributes:
        state: ``ready``, or ``draining`` once the server is told to stop.
    """

    def __init__(self, watched: Sequence[Watched], poll: float, measures: Measures) -> None:
        self.state = "ready"
        self._poll, self._measures = poll, measures
        self._places = [Place(each, now := each.signature(), now) for each in watched]
        self._busy = asyncio.Lock()

    @property
    def refused(self) -> str:
        """Why the newest was not taken; empty when it was."""
        return "; ".join(place.refused for place in self._places if place.refused)

    async def watch(self) -> None:
        """Look every few seconds, until cancelled."""
        while True:
            await asyncio.sleep(self._poll)
            await self.look()

    async def look(self, now: bool = False) -> bool:
        """Take what is new, if it has lain still since the last look, or ``now``; whether anything was."""
        async with self._busy:
            return any([await self._look(place, now) for place in self._places])

    async def _look(self, place: Place, now: bool) -> bool:
        found = await asyncio.to_thread(place.watched.signature)
        still, place.seen = found == place.seen, found
        if not found or found == place.served or not (still or now):
            return False
        place.served = found  # one that is refused is not tried again until it changes
        return await self._take(place, found)

    async def _take(self, place: Place, found: Signature) -> bool:
        watched, count = place.watched, self._measures.swaps.labels
        try:
            opened = await asyncio.to_thread(watched.open)
            if opened is not None and await asyncio.to_thread(watched.signature) != found:
                place.served = ()  # it changed while it was opened, and may be half of each: the next look tries again
                return False
        except Exception as error:  # a damaged folder makes its libraries raise whatever they like
            place.refused = (str(getattr(error, "what", error)) or type(error).__name__).splitlines()[0][:200]
            count(watched.what, "refused").inc()
            LOG.warning(f"{watched.what} refused", extra={"about": {"why": place.refused}})
            return False
        place.refused = ""
        if opened is None:
            return False
        about = watched.take(opened)
        settle()
        count(watched.what, "taken").inc()
        LOG.info(f"{watched.what} taken", extra={"about": about})
        return True


def lines(paths: Sequence[Path]) -> list[tuple[str, int, int, int]]:
    """What files a signature is made of are like."""
    return [(str(path), (on := path.stat()).st_ino, on.st_size, on.st_mtime_ns) for path in paths if path.is_file()]
