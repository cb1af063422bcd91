"""Networks that torch computes: any sentence-transformers model, by the library's own forward pass."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from rerankdistill import devices
from rerankdistill.encoding import Tokens, map_batches
from rerankdistill.types import FloatArray

if TYPE_CHECKING:
    from torch import Tensor

BATCH = 16384
"""Padded tokens of one forward pass."""


class TorchVectors:
    """``[n, d]`` vectors of a ``SentenceTransformer``; of length one where ``unit``."""

    def __init__(self, model: Any, device: devices.Device, unit: bool) -> None:
        self._model, self._device, self._unit = model.to(device.name).eval(), device, unit

    def __call__(self, tokens: Tokens) -> FloatArray:
        return np.stack(map_batches(tokens, self._forward, self._device, BATCH)).astype(np.float32)

    def _forward(self, features: dict[str, Tensor]) -> Tensor:
        vectors: Tensor = self._model(features)["sentence_embedding"].float()
        return vectors / vectors.norm(dim=-1, keepdim=True).clamp_min(1e-12) if self._unit else vectors


class TorchScores:
    """``[n]`` logits of a model with one label."""

    def __init__(self, model: Any, device: devices.Device) -> None:
        self._model, self._device = model.to(device.name).eval(), device

    def __call__(self, tokens: Tokens) -> FloatArray:
        return np.asarray(map_batches(tokens, self._forward, self._device, BATCH), np.float32)

    def _forward(self, features: dict[str, Tensor]) -> Tensor:
        logits: Tensor = self._model(**features).logits
        return logits[:, 0].float()
