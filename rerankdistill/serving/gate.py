"""What every request passes before a route sees it, as plain ASGI: who may ask, how much, how long, and the record.

What is written down of a request is its path, status, sizes and times: never its query string, its body or its key.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
import uuid
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rerankdistill.serving.measures import Measures
from rerankdistill.serving.problems import Problem, as_problem, render
from rerankdistill.serving.settings import LOOPBACK, Settings

LOG = logging.getLogger("rerankdistill.serving")
OPEN = frozenset({"/healthz", "/readyz"})
"""Paths that ask for no key, and that a busy server still answers."""
REQUEST_ID = re.compile(rb"[\w.-]{1,64}")
HOST = re.compile(r"(\[[^]]*\]|[^:]*)(:\d+)?")


class Gate:
    """The middleware.

    Args:
        open_paths: further ones that need no key: a page's own files, which hold no secrets.
    """

    def __init__(
        self, app: ASGIApp, settings: Settings, measures: Measures, open_paths: frozenset[str] = frozenset()
    ) -> None:
        self._app, self._settings, self._measures = app, settings, measures
        self._keys, self._open = settings.keys(), OPEN | open_paths
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        record = Record(scope, headers)
        body = Body(receive, headers, self._settings)
        problem = self._refused(scope, headers)
        if problem is None:
            scope.setdefault("state", {})["record"] = record
            self._held += 1
            try:
                await self._app(scope, body.receive, record.sending(send, body))
            except Exception as error:
                LOG.exception("request failed")
                if record.status:  # the answer has begun: only its end can tell that something is wrong
                    raise
                await render(scope["path"], as_problem(error))(scope, receive, record.sending(send, body))
            finally:
                self._held -= 1
        else:
            await render(scope["path"], problem)(scope, receive, record.sending(send, body))
        self._measures.request(scope, record.status, record.seconds)
        if scope["path"] not in OPEN:
            LOG.info("request", extra={"about": record.about()})

    def _refused(self, scope: Scope, headers: dict[bytes, bytes]) -> Problem | None:
        """Why a request is not even read."""
        if not self._host_is_ours(headers.get(b"host", b"").decode("latin-1")):
            return Problem(403, "this server answers to its own name alone; see --host")
        if scope["path"] in self._open:
            return None
        if self._keys and scope["method"] != "OPTIONS" and not self._keys.accept(headers.get(b"authorization")):
            return Problem(401, "an API key is needed: Authorization: Bearer KEY")
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > self._settings.max_body:
            return too_large(self._settings)
        if self._held >= self._settings.max_requests:
            return Problem(429, "the server holds as many requests as it takes; ask again later", retry=1.0)
        return None

    def _host_is_ours(self, host: str) -> bool:
        """On the loopback without keys a page of the web must not reach us by a name of its own for 127.0.0.1."""
        if self._keys or not self._settings.on_loopback:
            return True
        found = HOST.fullmatch(host)
        return not host or (found is not None and found[1].strip("[]").lower() in LOOPBACK)


def too_large(settings: Settings) -> Problem:
    return Problem(413, f"the body is too large: this server takes {settings.max_body} bytes")


class Body:
    """A request's body on its way in, bounded in size and time; then the wait for the client's leaving."""

    def __init__(self, receive: Receive, headers: dict[bytes, bytes], settings: Settings) -> None:
        self._receive, self._settings = receive, settings
        self._size, self._whole = 0, False
        self._empty = headers.get(b"content-length", b"0") == b"0" and b"transfer-encoding" not in headers
        self._end = time.monotonic() + settings.body_seconds

    @property
    def unread(self) -> bool:
        """Whether more of it may come."""
        return not self._whole and not self._empty

    async def receive(self) -> Message:
        """The next message.

        Raises:
            Problem: what has come so far is too much, or took too long.
        """
        if self._whole:
            return await self._receive()
        try:
            async with asyncio.timeout(self._end - time.monotonic()):
                message = await self._receive()
        except TimeoutError:
            what = f"the body was not there within {self._settings.body_seconds:g} s"
            raise Problem(408, what) from None
        self._size += len(message.get("body", b""))
        if self._size > self._settings.max_body:
            raise too_large(self._settings)
        self._whole = message["type"] != "http.request" or not message.get("more_body", False)
        return message


class Record:
    """What is remembered of a request."""

    def __init__(self, scope: Scope, headers: dict[bytes, bytes]) -> None:
        given = headers.get(b"x-request-id", b"")
        self.name = given if REQUEST_ID.fullmatch(given) else uuid.uuid4().hex.encode()
        self.status = 0
        self._scope, self._began, self._bytes = scope, time.perf_counter(), headers.get(b"content-length", b"0")

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._began

    def sending(self, send: Send, body: Body) -> Send:
        """``send``, with the request's name added to the answer. One before the body was read ends the connection."""

        async def wrapped(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.status = message["status"]
                added = [(b"x-request-id", self.name), *([(b"connection", b"close")] if body.unread else [])]
                message = {**message, "headers": [*message.get("headers", ()), *added]}
            await send(message)

        return wrapped

    def about(self) -> dict[str, Any]:
        """The log line. A path that no route knows is not written out: anything may stand in it."""
        route = getattr(self._scope.get("route"), "path", None)
        return {
            "request": self.name.decode(),
            "method": self._scope["method"] if self._scope["method"].isalpha() else "?",
            "path": route or "(no route)",
            "status": self.status,
            "ms": round(self.seconds * 1000, 2),
            "bytes": int(self._bytes) if self._bytes.isdigit() else 0,
        }
