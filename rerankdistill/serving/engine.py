"""The models of a server, behind the batcher, replaceable while they answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from rerankdistill.contracts import Role
from rerankdistill.encoding import Tokens
from rerankdistill.errors import UsageError
from rerankdistill.serving.batcher import Batcher
from rerankdistill.serving.model import Embedder, Models
from rerankdistill.serving.settings import Settings
from rerankdistill.types import FloatArray

INLINE = 2000
"""Texts of so many characters together are tokenised at once: handing them to a thread would take longer."""

CPU_BATCH, GPU_BATCH = 1024, 65536
"""Tokens a batch: more do not make a core faster, and the next request waits for all of them."""


@dataclass(frozen=True)
class Answer:
    """``values``: ``[n, dimension]`` vectors or ``[n]`` scores; ``tokens``: read for them; ``model``: who read."""

    values: FloatArray
    tokens: int
    model: str
    unit: bool = True
    """Of vectors: whether they have length one. Of scores: whether they are similarities, not logits."""


class Engine:
    """Answers with the current ``models``. A request keeps to the models that it began with."""

    def __init__(self, models: Models, batcher: Batcher) -> None:
        self.models, self.batcher = models, batcher
        self._tokenisers = ThreadPoolExecutor(2, "tokenizer")

    async def embed(self, texts: Sequence[str], role: Role) -> Answer:
        """``[n, dimension]`` vectors whose dot product is the model's similarity.

        Raises:
            UsageError: the student served here is a cross-encoder.
            Busy: the queue is full.
        """
        model = self.models.embedder
        if model is None:
            fix = "serve a bi-encoder for vectors; this one re-ranks"
            raise UsageError(f"{self.models.name} is a cross-encoder and makes no vectors", fix=fix)
        vectors, tokens = await self._encode(model, texts, role)
        return Answer(vectors, tokens, model.name, model.unit)

    async def rerank(self, query: str, docs: Sequence[str]) -> Answer:
        """``[n]`` scores of documents for a query: a cross-encoder's logits, or a bi-encoder's similarities."""
        reranker, embedder = self.models.reranker, self.models.embedder
        if reranker is not None:
            tokens = await self._tokenised(lambda: reranker.tokens(query, docs), [query, *docs])
            scores = await self.batcher.run(reranker.network, tokens)
            return Answer(scores, sum(tokens.lengths), reranker.name, unit=False)
        if embedder is None:
            raise UsageError("there is no model")
        queries, vectors = await asyncio.gather(
            self._encode(embedder, [query], "query"), self._encode(embedder, docs, "doc")
        )
        return Answer(vectors[0] @ queries[0][0], queries[1] + vectors[1], embedder.name)

    @classmethod
    def load(cls, settings: Settings) -> Engine:
        """Open the students that a server shall answer with; see :mod:`rerankdistill.serving.opening`."""
        from rerankdistill import devices
        from rerankdistill.serving.opening import load_models, put_back

        devices.take_threads(settings.cores)
        on_cpu = devices.choose(settings.device).name == "cpu"
        put_back(settings.place.expanduser())
        budget = settings.batch_tokens or (CPU_BATCH if on_cpu else GPU_BATCH)
        return cls(load_models(settings), Batcher(budget, settings.max_queue, settings.cores if on_cpu else 1))

    def close(self) -> None:
        self.batcher.close()
        self._tokenisers.shutdown(wait=False, cancel_futures=True)

    async def _encode(self, model: Embedder, texts: Sequence[str], role: Role) -> tuple[FloatArray, int]:
        tokens = await self._tokenised(lambda: model.tokens(texts, role), texts)
        return await self.batcher.run(model.networks[role], tokens), sum(tokens.lengths)

    async def _tokenised(self, work: Callable[[], Tokens], texts: Sequence[str]) -> Tokens:
        if sum(map(len, texts)) <= INLINE:
            return work()
        return await asyncio.get_running_loop().run_in_executor(self._tokenisers, work)
