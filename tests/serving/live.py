"""A real uvicorn on loopback: in a thread for what clients ask, in a process for what is done to processes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import uvicorn

from rerankdistill.serving.app import create_app
from rerankdistill.serving.batcher import Batcher
from rerankdistill.serving.engine import Engine
from rerankdistill.serving.model import Embedder, Models, Reranker
from rerankdistill.serving.run import assemble, options
from rerankdistill.serving.settings import Settings

TRUSTED = httpx.create_ssl_context()


class Http(threading.local):
    """A client for each thread. Of threads that share one, httpcore closes a connection under another's hands now
    and then: it looks idle until it is used, and readable as soon as it is answered."""

    def __init__(self) -> None:
        client = httpx.Client(timeout=60, verify=TRUSTED, trust_env=False)
        self.get, self.post = client.get, client.post


http = Http()


@contextmanager
def serving(place: Path, engine: Engine | None = None, **limits: Any) -> Iterator[str]:
    """The address of a server in a thread of this process; exact on every machine unless ``dtype`` says otherwise."""
    settings = Settings(place=place, port=0, threads=1, **{"dtype": "float32", **limits})
    app = create_app(engine, settings) if engine else assemble(settings)
    server = uvicorn.Server(uvicorn.Config(app, **{**options(settings), "log_config": None}))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_for(lambda: server.started)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(20)


def wait_for(true: Any, seconds: float = 60.0) -> None:
    """Until ``true()``; an AssertionError after ``seconds``."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


class Slow:
    """An engine's model that takes its time and counts: each text's vector is its number of tokens."""

    def __init__(self, tokenizer: Any, seconds: float = 0.0, says: float = 1.0) -> None:
        self.seconds, self.says, self.batches = seconds, says, []
        self._tokenizer = tokenizer

    def __call__(self, tokens: Any, threads: int = 0) -> np.ndarray:
        self.batches.append(len(tokens.lengths))
        time.sleep(self.seconds)
        return np.full((len(tokens.lengths), 2), self.says, np.float32)

    def models(self, name: str = "slow") -> Models:
        tokenizers = {"query": self._tokenizer, "doc": self._tokenizer}
        about = (2, {"query": 64, "doc": 64}, tokenizers, {"query": self, "doc": self})
        return Models(Embedder(name, f"{name}-{self.says}", *about, unit=False))

    def engine(self, max_queue: int = 8192, batch_tokens: int = 4096) -> Engine:
        return Engine(self.models(), Batcher(batch_tokens, max_queue))


def scorer(tokenizer: Any, logits: dict[str, float]) -> Models:
    """A cross-encoder that says what it is told of documents of one word."""
    ids = {tokenizer.convert_tokens_to_ids(word): logit for word, logit in logits.items()}

    def network(tokens: Any, threads: int = 0) -> np.ndarray:
        return np.asarray([ids[row[-2]] for row in tokens.columns["input_ids"]], np.float32)

    return Models(None, Reranker("scorer", "s", 64, tokenizer, network))


class Process:
    """``rerankdistill serve`` as users start it."""

    def __init__(self, place: Path, *arguments: str, keys: str = "") -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        command = [sys.executable, "-m", "rerankdistill", "serve", str(place), "--port", str(self.port), *arguments]
        env = {**os.environ, "RERANKDISTILL_API_KEYS": keys, "OMP_NUM_THREADS": "1"}
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  a pipe that nobody reads fills, and stops it
        self.process = subprocess.Popen(command, stderr=self._log, text=True, env=env)

    def __enter__(self) -> Process:
        wait_for(lambda: self.process.poll() is not None or self.ready(), 120)
        assert self.process.poll() is None, self.said()
        return self

    def ready(self) -> bool:
        try:
            return http.get(f"{self.url}/readyz").status_code == 200
        except httpx.TransportError:
            return False

    def said(self) -> str:
        """All that it wrote to stderr so far."""
        log = self._log.fileno()
        return os.pread(log, os.fstat(log).st_size, 0).decode()

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._log.close()
