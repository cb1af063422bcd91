"""JSON over HTTP to an OpenAI-compatible server, stubborn within bounds.

An endpoint may be busy, slow, gone, or talk nonsense. What may pass is tried again, after pauses that grow at random
(or as long as the server asks for); what does not pass ends in one error. No error and no log line carries the key.
"""

from __future__ import annotations

import ipaddress
import json
import os
import random
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from functools import cached_property
from typing import Any, TypeGuard
from urllib.parse import urlsplit

import httpx
from pydantic import NonNegativeInt, PositiveFloat, PositiveInt, field_validator

from rerankdistill.cards import Card
from rerankdistill.errors import CardError, MissingDependency
from rerankdistill.scores.llm.purse import Purse, Tokens

AGAIN = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
"""The answers that a later try may change."""

MOST_BYTES = 64 * 2**20
"""An answer that is longer is nonsense."""

KEPT = "every score of the batches before is kept"


class EndpointStopped(MissingDependency):
    """The endpoint does not answer, or not with anything that makes sense, however often it is asked."""


class EndpointRefused(CardError):
    """The endpoint says that the request is wrong."""


class WireOptions(Card):
    """Where an endpoint is and how patient to be with it; none of this decides a score.

    Attributes:
        url: its base, mostly ending in ``/v1``.
        key_env: the environment variable that holds the key; sent as a bearer token where it is set. It goes to a
            server without encryption only if that is on this machine, or if the card names the variable.
        concurrency: requests at a time.
        timeout: seconds for one request, from sending to the last byte of its answer.
        retries: how often a request is sent again.
        backoff: seconds before the first retry, at most; doubled for each further one.
        patience: seconds of the longest pause. A server that asks for more is not waited for.
    """

    url: str = "http://127.0.0.1:8000/v1"
    key_env: str = "OPENAI_API_KEY"
    concurrency: PositiveInt = 8
    timeout: PositiveFloat = 60.0
    retries: NonNegativeInt = 5
    backoff: PositiveFloat = 0.5
    patience: PositiveFloat = 60.0

    @field_validator("url")
    @classmethod
    def _plain(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("not the address of a server, as http://127.0.0.1:8000/v1")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise ValueError("a card is copied into manifests: no user, password or query; name a variable in key_env")
        return url.rstrip("/")

    @property
    def local(self) -> bool:
        """Whether the server is on this machine."""
        host = urlsplit(self.url).hostname or ""
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return host == "localhost" or host.endswith(".localhost")

    def key(self) -> str:
        """The key, empty where there is none to send."""
        safe = self.local or self.url.startswith("https:") or "key_env" in self.model_fields_set
        return os.environ.get(self.key_env, "").strip() if safe else ""


class Wire:
    """One endpoint. Safe to use from several threads."""

    def __init__(self, options: WireOptions, purse: Purse, where: str) -> None:
        self.options, self.purse, self.where = options, purse, where
        self._key = options.key()
        if not (self._key.isascii() and self._key.isprintable()):  # the library's own error would show it
            fix = f"put the key alone into the environment variable {options.key_env}"
            raise MissingDependency("the key holds characters that no key has", where=where, fix=fix)
        self._resume_at = 0.0
        self._idle: list[httpx.Client] = []

    @cached_property
    def _trusted(self) -> ssl.SSLContext:
        """Whose certificates count: read once, for that takes longer than most requests."""
        return httpx.create_ssl_context(trust_env=not self.options.local)

    def _open(self) -> httpx.Client:
        headers = {"Content-Type": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        # A proxy that the environment names must never get between two processes of one machine.
        local, timeout = self.options.local, self.options.timeout
        return httpx.Client(headers=headers, timeout=timeout, verify=self._trusted, trust_env=not local)

    @contextmanager
    def _alone(self) -> Iterator[httpx.Client]:
        """A client that no other request has. Threads that share one close, now and then, a connection that another
        has just taken up: an answer lost that was paid for."""
        try:
            client = self._idle.pop()
        except IndexError:
            client = self._open()
        try:
            yield client
        finally:
            self._idle.append(client)

    def ready(self) -> None:
        """Read the certificates in one thread, before several ask for them."""
        self._trusted  # noqa: B018

    def close(self) -> None:
        """Let go of the connections; the next request opens new ones."""
        while self._idle:
            self._idle.pop().close()

    def post(self, path: str, body: dict[str, Any], tokens: Tokens, stop: threading.Event) -> dict[str, Any]:
        """The reply to one request, whose tokens the purse has set aside; they are paid for here.

        Args:
            stop: set by whoever gives up; no further try is begun then.

        Raises:
            EndpointStopped: no sensible answer after all retries, or ``stop``.
            EndpointRefused: the request is wrong.
            MissingDependency: the key is missing or wrong.
            BudgetReached: there is not enough left for another try of a request that may have been charged.
        """
        fault = _Fault("")
        for attempt in range(self.options.retries + 1):
            if attempt:
                self._pause(attempt, fault, stop)
            if stop.is_set():
                self.purse.free(tokens)
                raise self._stopped("given up with the others")
            try:
                return self._once(path, body, tokens)
            except _Fault as error:
                fault = error
            if fault.charged:
                self.purse.lose(tokens)
                if attempt < self.options.retries:
                    self.purse.hold([tokens])
            elif attempt == self.options.retries or self._too_long(fault):
                self.purse.free(tokens)
            if self._too_long(fault):
                raise self._stopped(f"{fault}, and asks to be left alone for {fault.wait:.0f} s")
        tries = self.options.retries + 1
        raise self._stopped(f"{fault}" + (f", {tries} times in a row" if tries > 1 else ""))

    def _once(self, path: str, body: dict[str, Any], tokens: Tokens) -> dict[str, Any]:
        try:
            status, headers, content = self._send(path, body)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise _Fault("cannot be reached") from error
        except httpx.TimeoutException as error:
            raise _Fault(f"gives no answer within {self.options.timeout:g} s", charged=True) from error
        except (httpx.TransportError, httpx.DecodingError) as error:
            raise _Fault("breaks off the connection", charged=True) from error
        if status in AGAIN:
            raise _Fault(f"answers {status}{self._excerpt(content)}", wait=_retry_after(headers))
        if status != 200:
            self.purse.free(tokens)
            raise self._refused(status, headers, content)
        try:
            reply = json.loads(content)
        except ValueError as error:
            raise _Fault(f"answers something that is not JSON{self._excerpt(content)}", charged=True) from error
        if not _is_reply(reply):
            raise _Fault(f"answers JSON that is no completion{self._excerpt(content)}", charged=True)
        self.purse.pay(tokens, reply.get("usage"))
        return reply

    def _send(self, path: str, body: dict[str, Any]) -> tuple[int, httpx.Headers, bytes]:
        """Status, headers and content. The library's time limit is for each piece of an answer; here it holds for
        all of them together."""
        deadline = time.monotonic() + self.options.timeout
        content = json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")  # half a character is none
        url = f"{self.options.url}/{path}"
        with self._alone() as client, client.stream("POST", url, content=content) as response:
            answer = bytearray()
            for chunk in response.iter_bytes():
                answer += chunk
                if time.monotonic() > deadline or len(answer) > MOST_BYTES:
                    raise httpx.ReadTimeout("too slow or too long")
            return response.status_code, response.headers, bytes(answer)

    def _pause(self, attempt: int, fault: _Fault, stop: threading.Event) -> None:
        """Wait before another try: as long as the server asks, for all requests alike, and a random while longer."""
        self.purse.count("retries")
        longest = min(self.options.backoff * 2 ** (attempt - 1), self.options.patience)
        if fault.wait:
            self._resume_at = max(self._resume_at, time.monotonic() + fault.wait)
        rest = max(self._resume_at - time.monotonic(), 0.0)
        stop.wait(rest + random.uniform(longest / 2, longest))

    def _too_long(self, fault: _Fault) -> bool:
        return fault.wait > self.options.patience

    def _stopped(self, what: str) -> EndpointStopped:
        fix = f"{KEPT}; see to it that the server runs, then run again: nothing that is stored is asked for twice"
        return EndpointStopped(f"the endpoint at {self.options.url} {what}", where=self.where, fix=fix)

    def _refused(self, status: int, headers: httpx.Headers, content: bytes) -> MissingDependency | CardError:
        url, told = self.options.url, self._excerpt(content)
        if status in (401, 403):
            have = "rejects the key" if self._key else "wants a key"
            fix = f"put a valid key into the environment variable {self.options.key_env}; {KEPT}"
            return MissingDependency(f"the endpoint at {url} {have} ({status})", where=self.where, fix=fix)
        if 300 <= status < 400:
            target = self._clean(headers.get("location", "elsewhere"))
            fix = "write the address of the server itself into options.url of the teacher's card"
            return EndpointRefused(f"the endpoint at {url} redirects to {target}", where=self.where, fix=fix)
        if status in (404, 405):
            fix = "look at options.url (it mostly ends in /v1) and model in the teacher's card"
        else:
            fix = f"change the teacher's card: model, lengths, or options.omit and options.extra; {KEPT}"
        return EndpointRefused(f"the endpoint at {url} refuses the request ({status}){told}", where=self.where, fix=fix)

    def _excerpt(self, content: bytes) -> str:
        """The beginning of an answer, for an error message."""
        text = " ".join(self._clean(content[:2000].decode("utf-8", "replace")).split())
        return f": {text[:200]}" if text else " (nothing)"

    def _clean(self, text: str) -> str:
        return text.replace(self._key, "***") if self._key else text


def _is_reply(reply: Any) -> TypeGuard[dict[str, Any]]:
    """Whether it has a first choice with a message or a text."""
    choices = reply.get("choices") if isinstance(reply, dict) else None
    first = choices[0] if isinstance(choices, list) and choices else None
    return isinstance(first, dict) and (isinstance(first.get("message"), dict) or isinstance(first.get("text"), str))


class _Fault(Exception):
    """One try failed. ``wait``: the seconds that the server asks for; ``charged``: whether it may have worked."""

    def __init__(self, what: str, wait: float = 0.0, charged: bool = False) -> None:
        self.wait, self.charged = wait, charged
        super().__init__(what)


def _retry_after(headers: httpx.Headers) -> float:
    """Seconds, of ``Retry-After: 3`` or of a date (RFC 9110, 10.2.3); 0 where there is none that can be read."""
    told = headers.get("retry-after", "")
    try:
        seconds = float(told)
        return seconds if seconds > 0 else 0.0  # not a number, too
    except ValueError:
        pass
    try:
        return max(parsedate_to_datetime(told).timestamp() - time.time(), 0.0)
    except (ValueError, TypeError):
        return 0.0
