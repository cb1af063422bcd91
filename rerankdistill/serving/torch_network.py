"""Networks that torch computes: BERT on a processor without padding, every other model by the library's own forward
pass."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from rerankdistill import devices
from rerankdistill.encoding import EXACT, Tokens, map_batches
from rerankdistill.serving import unpadded
from rerankdistill.serving.batcher import Network
from rerankdistill.types import FloatArray

if TYPE_CHECKING:
    from torch import Tensor

PROBES = ("a", "what is the weather like", "a longer text about rain, wind and clouds over the northern sea " * 3)
"""Texts on which another way to compute a model is compared with the library's."""
BATCH = 16384
"""Padded tokens of one forward pass."""


def called(device: devices.Device) -> str:
    """What torch's networks are called where people read of them."""
    return f"torch {device.dtype} on {device.name}"


def vectors_of(tower: Any, device: devices.Device, unit: bool, tokens: Tokens) -> Network:
    """The fastest network that gives a ``SentenceTransformer``'s vectors; of length one where ``unit``.

    Args:
        tokens: some texts, on which ways are compared.
    """
    theirs = TorchVectors(tower, device, unit)
    head = _pooled(tower, unit)
    if head is None or device.name != "cpu":
        return theirs
    mine = unpadded.Unpadded(tower[0].model, head, device.dtype)
    return _faster(mine, TorchVectors(tower, EXACT, unit), tokens, theirs)


def scores_of(model: Any, device: devices.Device, tokens: Tokens) -> Network:
    """The fastest network that gives a model's one logit."""
    from transformers import BertForSequenceClassification

    theirs = TorchScores(model, device)
    if device.name != "cpu" or not isinstance(model, BertForSequenceClassification) or not _plain(model.bert):
        return theirs
    mine = unpadded.Unpadded(model.bert, unpadded.score_head(model), device.dtype)
    return _faster(mine, TorchScores(model, EXACT), tokens, theirs)


def _faster(mine: Network, exact: Network, tokens: Tokens, theirs: Network) -> Network:
    """``mine`` where it says what the library says in float32, else the library's own."""
    return mine if unpadded.agrees(mine(tokens, 1), exact(tokens, 1)) else theirs


def _pooled(tower: Any, unit: bool) -> unpadded.Head | None:
    """How a plain BERT's tokens become one vector; None for any other model."""
    parts = list(tower.children())
    body, rest = getattr(parts[0], "model", None), parts[1:]
    if not _plain(body) or not rest or {type(each).__name__ for each in rest[1:]} - {"Normalize"}:
        return None
    mode, normal = getattr(rest[0], "pooling_mode", None), unit or len(rest) > 1
    heads = {"mean": unpadded.mean_head, "cls": unpadded.first_head}
    return heads[mode](normal) if isinstance(mode, str) and mode in heads else None


def _plain(body: Any) -> bool:
    """Whether this is what :mod:`rerankdistill.serving.unpadded` computes."""
    from transformers import BertModel

    if type(body) is not BertModel or body.config.is_decoder:
        return False
    places = getattr(body.config, "position_embedding_type", None) or "absolute"
    return bool(body.config.hidden_act == "gelu" and places == "absolute")


class TorchVectors:
    """``[n, d]`` vectors of a ``SentenceTransformer``; of length one where ``unit``."""

    def __init__(self, model: Any, device: devices.Device, unit: bool) -> None:
        self._model, self._device, self._unit = model.to(device.name).eval(), device, unit

    def __call__(self, tokens: Tokens, threads: int = 0) -> FloatArray:
        devices.take_threads(threads)
        return np.stack(map_batches(tokens, self._forward, self._device, BATCH)).astype(np.float32)

    def _forward(self, features: dict[str, Tensor]) -> Tensor:
        vectors: Tensor = self._model(features)["sentence_embedding"].float()
        return vectors / vectors.norm(dim=-1, keepdim=True).clamp_min(1e-12) if self._unit else vectors


class TorchScores:
    """``[n]`` logits of a model with one label."""

    def __init__(self, model: Any, device: devices.Device) -> None:
        self._model, self._device = model.to(device.name).eval(), device

    def __call__(self, tokens: Tokens, threads: int = 0) -> FloatArray:
        devices.take_threads(threads)
        return np.asarray(map_batches(tokens, self._forward, self._device, BATCH), np.float32)

    def _forward(self, features: dict[str, Tensor]) -> Tensor:
        logits: Tensor = self._model(**features).logits
        return logits[:, 0].float()
