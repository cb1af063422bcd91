"""The numbers behind ``/metrics``, in Prometheus' form."""

from __future__ import annotations

import os

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from starlette.types import Scope

from rerankdistill.serving.batcher import Batcher

NAME = "rerankdistill"
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
SHARED = "PROMETHEUS_MULTIPROC_DIR"
"""The environment variable by which several workers count together; the library reads it."""


class Measures:
    """Counters of one app. Several apps in one process count apart."""

    def __init__(self) -> None:
        self._own = CollectorRegistry()
        own, path = self._own, ["path"]
        self._requests = Counter(f"{NAME}_requests", "Requests answered", ["path", "status"], registry=own)
        self._seconds = Histogram(
            f"{NAME}_request_seconds", "From request to answer", path, buckets=SECONDS, registry=own
        )
        self._batch = Histogram(f"{NAME}_batch_texts", "Texts of a batch", buckets=COUNTS, registry=own)
        self._batch_seconds = Histogram(
            f"{NAME}_batch_seconds", "The model's time for a batch", buckets=SECONDS, registry=own
        )
        self._tokens = Counter(f"{NAME}_tokens", "Tokens that the model read", registry=own)
        self._waiting = Gauge(f"{NAME}_waiting_texts", "Texts in the queue", multiprocess_mode="livesum", registry=own)
        self.swaps = Counter(
            f"{NAME}_swaps", "What was found in place of what is served", ["what", "result"], registry=own
        )
        self._batcher: Batcher | None = None

    def watch(self, batcher: Batcher) -> None:
        """Count a batcher's work."""
        batcher.on_batch, self._batcher = self.batch, batcher

    def request(self, scope: Scope, status: int, seconds: float) -> None:
        path = getattr(scope.get("route"), "path", "(no route)")
        self._requests.labels(path, str(status)).inc()
        self._seconds.labels(path).observe(seconds)

    def batch(self, texts: int, tokens: int, seconds: float) -> None:
        self._batch.observe(texts)
        self._batch_seconds.observe(seconds)
        self._tokens.inc(tokens)

    def text(self) -> bytes:
        """The exposition; of all workers where there are several."""
        if self._batcher:
            self._waiting.set(self._batcher.waiting)
        if not os.environ.get(SHARED):
            return generate_latest(self._own)
        everywhere = CollectorRegistry()
        MultiProcessCollector(everywhere)  # type: ignore[no-untyped-call]
        return generate_latest(everywhere)
