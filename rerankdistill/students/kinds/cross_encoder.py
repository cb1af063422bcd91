"""A cross-encoder: reads query and document together and gives one score.

Any Hugging Face encoder; saved as a plain sentence-transformers CrossEncoder folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from rerankdistill import devices
from rerankdistill.artifacts import fingerprint
from rerankdistill.cards import Card
from rerankdistill.contracts import Reading
from rerankdistill.encoding import load, locate, map_batches, model_fingerprint, tokenise
from rerankdistill.students.kinds._network import fit_attention, run_chunks, without_dropout
from rerankdistill.students.layers import Freeze, Layers, freeze, keep_layers
from rerankdistill.students.lora import LoraOptions, adapt, saved_plain
from rerankdistill.types import FloatArray

if TYPE_CHECKING:
    from torch import Tensor

    from rerankdistill.students.batch import Budget, ListBatch


class CrossEncoderOptions(Card):
    """What a cross-encoder student is made from."""

    init: str
    revision: str | None = None
    layers: Layers | None = None
    """Keep so many evenly spaced layers, or these, or ``"first:2"``, or ``"last:2"``."""
    max_tokens: int = 192
    """Of query and document together; the document is cut, never the query."""
    dropout: float | None = 0.0
    freeze: Freeze | None = None
    """Leave as they are: ``"embeddings"``, or the embeddings and so many of the lowest layers."""
    lora: LoraOptions | None = None
    """Train adapters and the head alone; they are added into the weights when the student is saved."""


class Kind:
    """A cross-encoder in training, and in use: :meth:`score` makes it a :class:`rerankdistill.contracts.PairScorer`."""

    Options = CrossEncoderOptions
    layout: Literal["batch", "lists"] = "lists"
    gives: frozenset[str] = frozenset()
    """What its readings hold beside scores; see :class:`rerankdistill.contracts.Reading`."""

    def __init__(self, model: Any, options: CrossEncoderOptions, device: devices.Device, mark: str) -> None:
        self.network, self.options, self.device = model.to(device.name), options, device
        self.training_tokens = 0
        """Cut pairs to so many tokens in training; 0: as in use."""
        if options.freeze is not None:
            freeze(self.network.model, options.freeze)
        self.fingerprint = fingerprint("cross_encoder", mark, options.max_tokens, device.dtype)

    @classmethod
    def create(cls, options: CrossEncoderOptions, device: str = "auto") -> Kind:
        """A new student from its options; a model without a head gets a new one (seed torch first)."""
        model = _load(options.init, options.revision)
        if options.layers is not None:
            keep_layers(model.model, options.layers)
        without_dropout(model.model, options.dropout)
        return cls(model, options, devices.choose(device), cls.source_fingerprint(options))

    @classmethod
    def open(cls, folder: Path, options: CrossEncoderOptions, device: str = "auto") -> Kind:
        """A student that :meth:`save` wrote."""
        return cls(_load(str(folder), None), options, devices.choose(device), model_fingerprint(str(folder)))

    @staticmethod
    def source_fingerprint(options: CrossEncoderOptions) -> str:
        return model_fingerprint(locate(options.init), options.revision)

    @staticmethod
    def as_teacher(options: CrossEncoderOptions) -> dict[str, Any]:
        """What the card of a trained one says when it teaches: how it is opened, and what its scores are."""
        return {"kind": "cross_encoder", "scale": "logit", "lengths": {"total": options.max_tokens}}

    def ready(self, training: bool) -> None:
        """Switch between training and inference; the weights stay."""
        if training and self.options.lora:
            adapt(self.network.model, self.options.lora, head=True)
        self.network.train(training)
        fit_attention(self.network.model, self.device, training)

    def save(self, folder: Path) -> None:
        with saved_plain(self.network.model):
            self.network.save_pretrained(str(folder), create_model_card=False)

    def read(self, batch: ListBatch, budget: Budget, needs: frozenset[str]) -> list[Reading]:  # noqa: ARG002
        """``[b, m]``: every query against its own list."""
        import torch

        rows, columns = torch.nonzero(batch.valid, as_tuple=True)
        queries = [batch.queries[row] for row in rows.tolist()]
        docs = [batch.docs[doc] for doc in batch.columns[rows, columns].tolist()]
        limit = self.training_tokens or self.options.max_tokens
        tokens = tokenise(self.network.tokenizer, queries, min(limit, self.options.max_tokens), docs)
        found = run_chunks(self._forward, tokens, budget, self.network, self.device, apart=True)
        place = found.device
        out = torch.zeros(batch.valid.shape, device=place, dtype=found.dtype)
        return [Reading(out.index_put((rows.to(place), columns.to(place)), found))]

    def score(self, pairs: Sequence[tuple[str, str]]) -> FloatArray:
        """``[len(pairs)]`` logits."""
        self.network.eval()
        queries, docs = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        tokens = tokenise(self.network.tokenizer, queries, self.options.max_tokens, docs)
        return np.asarray(map_batches(tokens, self._forward, self.device, 16384, apart=True), np.float32)

    def _forward(self, features: dict[str, Tensor]) -> Tensor:
        logits: Tensor = self.network.model(**features).logits
        return logits[:, 0] if logits.element_size() > 4 else logits[:, 0].float()


def _load(init: str, revision: str | None) -> Any:
    import torch
    from sentence_transformers import CrossEncoder

    raw = torch.nn.Identity()  # scores are logits; the library would squash them with a sigmoid
    return load(lambda path: CrossEncoder(path, num_labels=1, revision=revision, device="cpu", activation_fn=raw), init)
