"""A bi-encoder: queries and documents become vectors that are compared by cosine or dot product.

Any sentence-transformers folder or Hugging Face encoder; saved as a plain sentence-transformers folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rerankdistill import devices
from rerankdistill.cards import Card
from rerankdistill.contracts import Reading, Vectors
from rerankdistill.encoding import TextEncoder, load_bi_encoder, locate, model_fingerprint, towers
from rerankdistill.students.kinds._network import fit_attention, run_chunks, without_dropout
from rerankdistill.students.layer_scores import pooled_layers
from rerankdistill.students.layers import keep_layers

if TYPE_CHECKING:
    from torch import Tensor

    from rerankdistill.contracts import Role
    from rerankdistill.students.batch import Budget, ListBatch, VectorBatch


class BiEncoderOptions(Card):
    """What a bi-encoder student is made from."""

    init: str
    """Hugging Face id, folder or ``package:NAME/PATH``."""
    revision: str | None = None
    layers: int | list[int] | None = None
    """Keep so many evenly spaced layers, or these."""
    similarity: Literal["cosine", "dot"] = "cosine"
    query_tokens: int = 64
    doc_tokens: int = 256
    query_prefix: str | None = None
    doc_prefix: str | None = None
    dropout: float | None = 0.0
    """None: the model's own. Distillation matches a function, so noise in the student helps little."""


class Kind:
    """A bi-encoder in training; see :class:`rerankdistill.contracts.Encoder` for the same model in use."""

    Options = BiEncoderOptions
    layout: Literal["batch", "lists"] = "batch"

    def __init__(self, model: Any, query_tokens: int, doc_tokens: int, device: devices.Device) -> None:
        self.network, self.device = model, device
        self.training_tokens = 0
        """Cut documents to so many tokens in training; 0: as in use."""
        self._encoder = TextEncoder(model, "in training", device, {"query": query_tokens, "doc": doc_tokens})

    @classmethod
    def create(cls, options: BiEncoderOptions, device: str = "auto") -> Kind:
        """A new student from its options."""
        model = towers(load_bi_encoder(options.init, options.revision))["query"]
        if options.layers is not None:
            keep_layers(model[0].model, options.layers)
        without_dropout(model[0].model, options.dropout)
        model.similarity_fn_name = options.similarity
        for name, prefix in (("query", options.query_prefix), ("document", options.doc_prefix)):
            if prefix is not None:
                model.prompts[name] = prefix
        return cls(model, options.query_tokens, options.doc_tokens, devices.choose(device))

    @classmethod
    def open(cls, folder: Path, options: BiEncoderOptions, device: str = "auto") -> Kind:
        """A student that :meth:`save` wrote, to be trained further."""
        model = load_bi_encoder(str(folder))
        return cls(model, options.query_tokens, options.doc_tokens, devices.choose(device))

    @staticmethod
    def source_fingerprint(options: BiEncoderOptions) -> str:
        return model_fingerprint(locate(options.init), options.revision)

    @staticmethod
    def as_teacher(options: BiEncoderOptions) -> dict[str, Any]:
        """What the card of a trained one says when it teaches: how it is opened, and what its scores are."""
        lengths = {"query": options.query_tokens, "doc": options.doc_tokens}
        return {"kind": "bi_encoder", "scale": "similarity", "lengths": lengths}

    def ready(self, training: bool) -> None:
        """Switch between training and inference; the weights stay."""
        self.network.train(training)
        fit_attention(self.network[0].model, self.device.name.split(":")[0], training)

    def save(self, folder: Path) -> None:
        self.network.save_pretrained(str(folder), create_model_card=False)

    def embed(self, texts: Sequence[str], role: Role, budget: Budget, layers: bool = False) -> Tensor:
        """``[len(texts), d]`` with gradient, float32 at least; of all ``layers`` ``[len(texts), layers, d]``, the
        lowest first."""
        import torch

        tokens = self._encoder.tokens(texts, role, self.training_tokens if role == "doc" else 0)
        with self.device.autocast():
            vectors = run_chunks(self._by_layer if layers else self._forward, tokens, budget, self._place())
        if self.network.similarity_fn_name == "cosine":
            vectors = torch.nn.functional.normalize(vectors, dim=-1)
        return vectors

    def _forward(self, features: dict[str, Tensor]) -> Tensor:
        vectors: Tensor = self.network(dict(features))["sentence_embedding"]  # it adds to them, and they are held
        return vectors if vectors.element_size() > 4 else vectors.float()

    def _by_layer(self, features: dict[str, Tensor]) -> Tensor:
        vectors = pooled_layers(self.network, features)
        return vectors if vectors.element_size() > 4 else vectors.float()

    def read(self, batch: ListBatch, budget: Budget, needs: frozenset[str]) -> list[Reading]:
        """``[b, m]``: every query of the batch against every distinct document of it."""
        by_layer = "layers" in needs
        queries = self.embed(batch.queries, "query", budget, by_layer)
        docs = self.embed(batch.docs, "doc", budget, by_layer)
        layers: Tensor | None = None
        if by_layer:
            layers = queries.transpose(0, 1) @ docs.permute(1, 2, 0)
            queries, docs = queries[:, -1], docs[:, -1]
        return [Reading(queries @ docs.T, docs=docs @ docs.T if "docs" in needs else None, layers=layers)]

    def vectors(self, batch: VectorBatch, budget: Budget) -> Vectors:
        return Vectors(self.embed(batch.texts, batch.role, budget), batch.targets.to(self._place()))

    def encoder(self) -> TextEncoder:
        """The same model for inference; shares the weights."""
        self.network.eval()
        return self._encoder

    def _place(self) -> str:
        return str(next(self.network.parameters()).device)
