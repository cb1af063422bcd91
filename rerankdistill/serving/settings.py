"""What a server may be told, in one frozen record that also reaches its worker processes."""

from __future__ import annotations

import hmac
import os
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from rerankdistill import devices
from rerankdistill.devices import Dtype
from rerankdistill.errors import UsageError

KEYS = "RERANKDISTILL_API_KEYS"
"""The environment variable that holds API keys, separated by commas or white space."""

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
SHORTEST_KEY = 16

Count = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0)]


class Settings(BaseModel):
    """The choices and limits of a server. Sizes are in bytes, characters, texts and tokens; times in seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    place: Path
    """The folder of a student, or the folder that a pipeline wrote."""
    student: str = ""
    """Which of a pipeline's students; empty: the one there is to serve."""
    collection: str = ""
    """What is searched; empty: what the pipeline's folder says."""
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8080
    workers: Count = 1
    threads: Annotated[int, Field(ge=0)] = 0
    """Of each worker; 0: the cores, shared out among the workers."""
    device: str = "auto"
    dtype: Dtype = "auto"
    key_file: Path | None = None
    """One API key a line; :data:`KEYS` adds to them."""
    cors: tuple[str, ...] = ()
    """The origins whose pages may ask; none by default."""
    poll: Seconds = 2.0
    """How often a worker looks whether a new student lies in the place of the one it serves."""

    max_body: Count = 8 << 20
    max_chars: Count = 100_000
    """Of one text."""
    max_texts: Count = 2048
    """Of one request."""
    max_queue: Count = 8192
    """Texts that may wait in a worker; more are refused with 429."""
    max_requests: Count = 1024
    """Requests that a worker holds at once; more are refused with 429."""
    batch_tokens: Annotated[int, Field(ge=0)] = 0
    """Of one batch; 0: what suits the device."""

    header_seconds: Seconds = 10.0
    """Until a connection's request has arrived but for its body."""
    body_seconds: Seconds = 30.0
    request_seconds: Seconds = 60.0
    """Until a request is answered, from when its body is there."""
    drain_seconds: Seconds = 30.0
    """What requests that are being answered get when the server is told to stop."""

    @property
    def cores(self) -> int:
        """Of the processor, for each worker."""
        return self.threads or max(devices.cores() // self.workers, 1)

    @property
    def on_loopback(self) -> bool:
        return self.host in LOOPBACK

    def keys(self) -> Keys:
        """The API keys of the file and the environment.

        Raises:
            UsageError: the file cannot be read, or a key is too short to be one.
        """
        words = os.environ.get(KEYS, "").replace(",", " ").split()
        if self.key_file is not None:
            try:
                words += self.key_file.expanduser().read_text("utf-8").split()
            except (OSError, UnicodeDecodeError) as error:
                what = f"the API keys cannot be read: {getattr(error, 'strerror', None) or 'not a text'}"
                raise UsageError(what, where=str(self.key_file), fix="write one key a line") from error
            if not words:
                raise UsageError("there is no API key in this file", where=str(self.key_file), fix="write one a line")
        if any(len(word) < SHORTEST_KEY for word in words):
            fix = "python -c 'import secrets; print(secrets.token_urlsafe())' makes one"
            raise UsageError(f"an API key has fewer than {SHORTEST_KEY} characters", where="API keys", fix=fix)
        return Keys(words)


class Keys:
    """API keys as hashes, compared in a time that says nothing about them."""

    def __init__(self, words: Iterable[str]) -> None:
        self._hashes = [sha256(word.encode()).digest() for word in words]

    def __bool__(self) -> bool:
        return bool(self._hashes)

    def accept(self, header: bytes | None) -> bool:
        """Whether an ``Authorization`` header carries a key; all keys are compared, whichever fits."""
        scheme, _, word = (header or b"").partition(b" ")
        given = sha256(word.strip()).digest()
        found = False
        for one in self._hashes:
            found |= hmac.compare_digest(one, given)
        return found and scheme.lower() == b"bearer"
