"""What the server needs of a student: its tokenizer and limits, and a network, whoever computes it.

:class:`rerankdistill.serving.torch_network` and an onnxruntime session are both a
:data:`rerankdistill.serving.batcher.Network`; nothing else here knows which it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rerankdistill.contracts import Role
from rerankdistill.encoding import Tokens, tokenise
from rerankdistill.serving.batcher import Network


@dataclass(frozen=True)
class Embedder:
    """A bi-encoder. ``networks`` give ``[n, dimension]`` vectors whose dot product is the model's similarity, and are
    the same object for both roles where one model reads both, so that queries and documents share batches."""

    name: str
    fingerprint: str
    dimension: int
    max_tokens: Mapping[Role, int]
    tokenizers: Mapping[Role, Any]
    networks: Mapping[Role, Network]
    prompts: Mapping[Role, str] = field(default_factory=dict)
    unit: bool = True
    """Whether its vectors have length one: its similarity is the cosine."""
    backend: str = "torch"
    """What computes it, for people: ``torch float32``, ``onnx int8``."""

    def tokens(self, texts: Sequence[str], role: Role) -> Tokens:
        prompt = self.prompts.get(role, "")
        return tokenise(self.tokenizers[role], [prompt + text for text in texts], self.max_tokens[role])


@dataclass(frozen=True)
class Reranker:
    """A cross-encoder. ``network`` gives ``[n]`` logits."""

    name: str
    fingerprint: str
    max_tokens: int
    """Of query and document together."""
    tokenizer: Any
    network: Network
    backend: str = "torch"

    def tokens(self, query: str, docs: Sequence[str]) -> Tokens:
        return tokenise(self.tokenizer, [query] * len(docs), self.max_tokens, docs)


@dataclass(frozen=True)
class Models:
    """What a server answers with at one time. With no reranker the embedder's similarity orders documents."""

    embedder: Embedder | None = None
    reranker: Reranker | None = None

    @property
    def name(self) -> str:
        first = self.embedder or self.reranker
        return first.name if first else ""

    @property
    def fingerprint(self) -> str:
        return "-".join(each.fingerprint for each in (self.embedder, self.reranker) if each)

    @property
    def mark(self) -> str:
        """Changes when the students do, or what computes them."""
        return "-".join(f"{each.fingerprint} {each.backend}" for each in (self.embedder, self.reranker) if each)
