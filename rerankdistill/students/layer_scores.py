"""What a bi-encoder would say at each of its layers: the layers' outputs, pooled as its last one is, are compared.

Sun et al. 2023, LEAD: *Liberal Feature-based Distillation for Dense Retrieval* (arXiv:2212.05225): a student's layers
follow a teacher's on scores, so that the two may differ in width, depth and vocabulary. Some layers of either are drawn
for each step, and those that were drawn belong together in their order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rerankdistill import devices
from rerankdistill.encoding import TextEncoder, map_batches
from rerankdistill.students.layers import last_norm
from rerankdistill.types import FloatArray

if TYPE_CHECKING:
    from torch import Tensor

    from rerankdistill.contracts import Role

REMEMBERED = 50_000_000
"""Numbers that a teacher's remembered layers may take: 200 MB."""


@dataclass(frozen=True)
class LayerLessons:
    """A teacher's layers in a stage.

    Attributes:
        read: ``(query_ids, queries, docs) -> [l, b, m]`` its scores by layer, lowest first.
        pairs: how many layers are drawn.
        seed: of the draw.
    """

    read: Callable[[Sequence[str], Sequence[str], Sequence[str]], FloatArray]
    pairs: int
    seed: int

    def draw(self, query_ids: Sequence[str]) -> tuple[int, int]:
        """``(pairs, a number for chance)`` of a step, by the queries that it asks: repeated, it draws the same."""
        digest = hashlib.sha256("\x1f".join((str(self.seed), *query_ids)).encode()).digest()
        return self.pairs, int.from_bytes(digest[:8], "little")


def drawn(student: Tensor, teacher: Tensor, pairs: int, chance: int) -> tuple[Tensor, Tensor]:
    """``pairs`` layers of each, fewer where one has fewer, in order: ``[pairs, b, m]`` of ``[l, b, m]``."""
    import torch

    count = min(pairs, len(student), len(teacher))
    rows = [np.sort(np.random.default_rng([chance, side]).permutation(len(part))[:count])
            for side, part in enumerate((student, teacher))]  # fmt: skip
    mine, theirs = (torch.from_numpy(each) for each in rows)
    return student[mine.to(student.device)], teacher[theirs.to(teacher.device)]


def pooled_layers(model: Any, features: dict[str, Tensor]) -> Tensor:
    """``[n, layers, d]`` of a ``SentenceTransformer``: what it makes of each layer's tokens, its own vector last."""
    import torch

    names = set(features) & {"input_ids", "attention_mask", "token_type_ids"}
    inputs = {name: features[name] for name in names}
    body = model[0].model
    *below, last = body(**inputs, output_hidden_states=True).hidden_states[1:]
    norm = last_norm(body)
    states = [*map(norm, below), last]
    found = []
    for state in states:
        out = {**features, "token_embeddings": state}
        for module in list(model.children())[1:]:
            out = module(out)
        found.append(out["sentence_embedding"])
    return torch.stack(found, 1)


class LayerTeacher:
    """A frozen bi-encoder, read layer by layer; texts that it met last are remembered."""

    def __init__(self, model: Any, device: devices.Device, max_tokens: dict[str, int]) -> None:
        self.encoder = TextEncoder(model.requires_grad_(False), "layers", device, max_tokens)
        self._remembered: dict[tuple[Role, str], FloatArray] = {}

    def scores(self, queries: Sequence[str], docs: Sequence[str]) -> FloatArray:
        """``[layers, len(queries), len(docs)]`` similarities by layer, lowest first."""
        one, other = self._vectors(queries, "query"), self._vectors(docs, "doc")
        return np.asarray(np.einsum("bld,mld->lbm", one, other), np.float32)

    def _vectors(self, texts: Sequence[str], role: Role) -> FloatArray:
        distinct = list(dict.fromkeys(texts))
        found = {text: self._remembered.pop((role, text)) for text in distinct if (role, text) in self._remembered}
        fresh = [text for text in distinct if text not in found]
        if fresh:
            tokens = self.encoder.tokens(fresh, role)
            rows = map_batches(tokens, self._forward, self.encoder.device, self.encoder.token_budget, apart=True)
            found |= dict(zip(fresh, rows, strict=True))
        self._remembered |= {(role, text): rows for text, rows in found.items()}
        layers = len(found[texts[0]])
        while len(self._remembered) * layers > max(REMEMBERED // self.encoder.dimension, 1):
            self._remembered.pop(next(iter(self._remembered)))
        return np.stack([found[text] for text in texts])

    def _forward(self, features: dict[str, Tensor]) -> Tensor:
        from torch.nn.functional import normalize

        vectors = pooled_layers(self.encoder.model, features).float()
        return normalize(vectors, dim=-1) if self.encoder.model.similarity_fn_name == "cosine" else vectors
