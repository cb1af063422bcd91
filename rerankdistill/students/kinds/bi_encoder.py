"""A bi-encoder: queries and documents become vectors that are compared by cosine or dot product.

Any sentence-transformers folder or Hugging Face encoder; saved as a plain sentence-transformers folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rerankdistill import devices
from rerankdistill.contracts import Reading, Vectors
from rerankdistill.encoding import TextEncoder, load_bi_encoder, locate, model_fingerprint, towers
from rerankdistill.errors import CardError
from rerankdistill.students.exits import EXITS, check_exits
from rerankdistill.students.kinds._network import fit_attention, run_chunks, without_dropout
from rerankdistill.students.layer_scores import pooled_layers
from rerankdistill.students.layers import Freeze, Layers, freeze, keep_layers, lowest, stack_of
from rerankdistill.students.lora import LoraOptions, adapt, saved_plain
from rerankdistill.students.readings import Way, WaysOptions, compared
from rerankdistill.students.together import shared_out

if TYPE_CHECKING:
    from torch import Tensor

    from rerankdistill.contracts import Role
    from rerankdistill.students.batch import Budget, ListBatch, VectorBatch


class BiEncoderOptions(WaysOptions):
    """What a bi-encoder student is made from, and in which ways it is read."""

    init: str
    """Hugging Face id, folder or ``package:NAME/PATH``."""
    revision: str | None = None
    layers: Layers | None = None
    """Keep so many evenly spaced layers, or these, or ``"first:2"``, or ``"last:2"``."""
    similarity: Literal["cosine", "dot"] = "cosine"
    query_tokens: int = 64
    doc_tokens: int = 256
    query_prefix: str | None = None
    doc_prefix: str | None = None
    pooling: Literal["mean", "cls"] | None = None
    """Which vector of a text's tokens is the text's; None: the model's own choice."""
    dropout: float | None = 0.0
    """None: the model's own. Distillation matches a function, so noise in the student helps little."""
    freeze: Freeze | None = None
    """Leave as they are: ``"embeddings"``, or the embeddings and so many of the lowest layers."""
    lora: LoraOptions | None = None
    """Train adapters alone; they are added into the weights when the student is saved."""


class Kind:
    """A bi-encoder in training; see :class:`rerankdistill.contracts.Encoder` for the same model in use."""

    Options = BiEncoderOptions
    layout: Literal["batch", "lists"] = "batch"
    gives: frozenset[str] = frozenset({"docs", "layers"})
    """What its readings hold beside scores; see :class:`rerankdistill.contracts.Reading`."""

    def __init__(self, model: Any, options: BiEncoderOptions, device: devices.Device) -> None:
        self.network, self.options, self.device = model, options, device
        self.training_tokens = 0
        """Cut documents to so many tokens in training; 0: as in use."""
        self.together = False
        """Whether every process of a ``torchrun`` reads the same batch, and encodes its share of the texts alone."""
        lengths = {"query": options.query_tokens, "doc": options.doc_tokens}
        self._encoder = TextEncoder(model, "in training", device, lengths)
        layers = len(stack_of(model[0].model)) if options.exits else 0
        self.ways = options.trained_ways(self._encoder.dimension, layers)
        if options.exits:
            check_exits(model, options.exits)
        if options.freeze is not None:
            freeze(model[0].model, options.freeze)

    @classmethod
    def create(cls, options: BiEncoderOptions, device: str = "auto") -> Kind:
        """A new student from its options."""
        return cls(cls.network_of(options), options, devices.choose(device))

    @staticmethod
    def network_of(options: BiEncoderOptions) -> Any:
        """The model that a new student is, before it learns."""
        model = towers(load_bi_encoder(options.init, options.revision))["query"]
        if options.layers is not None:
            keep_layers(model[0].model, options.layers)
        without_dropout(model[0].model, options.dropout)
        if options.pooling:
            _pool(model, options.pooling)
        model.similarity_fn_name = options.similarity
        for name, prefix in (("query", options.query_prefix), ("document", options.doc_prefix)):
            if prefix is not None:
                model.prompts[name] = prefix
        return model

    @classmethod
    def open(cls, folder: Path, options: BiEncoderOptions, device: str = "auto") -> Kind:
        """A student that :meth:`save` wrote, to be trained further."""
        model = load_bi_encoder(str(folder))
        return cls(model, options, devices.choose(device))

    @staticmethod
    def source_fingerprint(options: BiEncoderOptions) -> str:
        return model_fingerprint(locate(options.init), options.revision)

    @staticmethod
    def variants(options: BiEncoderOptions) -> list[Way]:
        """In which further ways a trained one can be used."""
        return options.ways()[1:]

    @staticmethod
    def as_teacher(options: BiEncoderOptions) -> dict[str, Any]:
        """What the card of a trained one says when it teaches: how it is opened, and what its scores are."""
        lengths = {"query": options.query_tokens, "doc": options.doc_tokens}
        return {"kind": "bi_encoder", "scale": "similarity", "lengths": lengths}

    def ready(self, training: bool) -> None:
        """Switch between training and inference; the weights stay."""
        if training and self.options.lora:
            adapt(self.network[0].model, self.options.lora)
        self.network.train(training)
        fit_attention(self.network[0].model, self.device, training)

    def save(self, folder: Path) -> None:
        """The student, and each of its exits as a smaller one in ``exits/``."""
        body = self.network[0].model
        with saved_plain(body):
            self._write(folder)
        for depth in self.options.exits:
            with lowest(body, depth), saved_plain(body):
                self._write(folder / EXITS / str(depth))

    def _write(self, folder: Path) -> None:
        self.network.save_pretrained(str(folder), create_model_card=False)

    def embed(self, texts: Sequence[str], role: Role, budget: Budget, layers: bool = False) -> Tensor:
        """``[len(texts), d]`` with gradient, float32 at least; of all ``layers`` ``[len(texts), layers, d]``, the
        lowest first."""
        import torch

        def encode(some: Sequence[str]) -> Tensor:
            tokens = self._encoder.tokens(some, role, self.training_tokens if role == "doc" else 0)
            run = self._by_layer if layers else self._forward
            return run_chunks(run, tokens, budget, self.network, self.device, apart=True)

        vectors = shared_out(texts, encode) if self.together else encode(texts)
        if self._cosine:
            vectors = torch.nn.functional.normalize(vectors, dim=-1)
        return vectors

    def _forward(self, features: dict[str, Tensor]) -> Tensor:
        vectors: Tensor = self.network(dict(features))["sentence_embedding"]  # it adds to them, and they are held
        return vectors if vectors.element_size() > 4 else vectors.float()

    def _by_layer(self, features: dict[str, Tensor]) -> Tensor:
        vectors = pooled_layers(self.network, features)
        return vectors if vectors.element_size() > 4 else vectors.float()

    def read(self, batch: ListBatch, budget: Budget, needs: frozenset[str]) -> list[Reading]:
        """``[b, m]``: every query of the batch against every distinct document of it, in each of the ways."""
        by_layer = "layers" in needs or any(way.depth for way in self.ways)
        queries = self._layered(batch.queries, "query", budget, by_layer)
        docs = self._layered(batch.docs, "doc", budget, by_layer)
        found = compared(queries, docs, self.ways, self._cosine, "docs" in needs)
        if "layers" in needs:
            layers = queries.transpose(0, 1) @ docs.permute(1, 2, 0)
            for each in found:
                each.layers = layers
        return found

    def _layered(self, texts: Sequence[str], role: Role, budget: Budget, by_layer: bool) -> Tensor:
        """``[n, layers, d]``; without ``by_layer`` the whole model's vectors are the only layer."""
        vectors = self.embed(texts, role, budget, by_layer)
        return vectors if by_layer else vectors[:, None]

    @property
    def _cosine(self) -> bool:
        return bool(self.network.similarity_fn_name == "cosine")

    def vectors(self, batch: VectorBatch, budget: Budget) -> Vectors:
        place = self._place()
        queue = None if batch.queue is None else batch.queue.to(place)
        return Vectors(self.embed(batch.texts, batch.role, budget), batch.targets.to(place), queue)

    def encoder(self) -> TextEncoder:
        """The same model for inference; shares the weights."""
        self.network.eval()
        return self._encoder

    def _place(self) -> str:
        return str(next(self.network.parameters()).device)


def _pool(model: Any, mode: str) -> None:
    """Choose how a ``SentenceTransformer`` makes one vector of many, in place."""
    for module in model.children():
        if hasattr(module, "pooling_mode"):
            if module.pooling_output_dimension != module.embedding_dimension:
                break
            module.pooling_mode = mode
            return
    fix = "leave pooling out"
    raise CardError(f"pooling = {mode!r}: the model does not pool into one vector that wide", where="students", fix=fix)
