"""uvicorn's HTTP protocol with two bounds that it lacks: how long and how large a request's head may be.

A client that sends a byte a second, or headers without end, would hold a connection for ever otherwise.
"""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

SECONDS = "header_seconds"
"""Where the application's lifespan state says how long."""
LARGEST = 64 * 1024
"""Bytes of a head."""


class Punctual(HttpToolsProtocol):
    """Closes a connection whose next head, once begun, is not whole in time; a new connection begins at once."""

    _due: asyncio.TimerHandle | None = None
    _head = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._begin()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._due is not None:
            self._head += len(data)
            if self._head > LARGEST:
                self._give_up()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._begin()

    def on_headers_complete(self) -> None:
        self._end()
        super().on_headers_complete()

    def _begin(self) -> None:
        self._end()
        self._due = self.loop.call_later(self.app_state.get(SECONDS, 10.0), self._give_up)

    def _end(self) -> None:
        self._head = 0
        if self._due is not None:
            self._due.cancel()
            self._due = None

    def _give_up(self) -> None:
        self._due = None
        if not self.transport.is_closing():
            self.transport.abort()
