r"""A sparse encoder: queries and documents become weights of the vocabulary's words, compared by their product.

.. math:: w_j = \max_i \log(1 + \mathrm{relu}(x_{ij}))

of the logits x of a masked language model's head (SPLADE, Formal et al. 2021, arXiv:2107.05720; the maximum instead of
the sum, and distillation: arXiv:2109.10086). A regularisation of queries and of documents drives most weights to zero;
its weight rises with the square of the steps. An inverted index then serves the student. With ``queries = "static"`` a
query's words get learned weights that do not hang on each other (Geng et al. 2024, arXiv:2411.04403): no network runs
at query time.

Saved as a plain sentence-transformers ``SparseEncoder`` folder.

Memory in training: a text's vector takes 4 bytes a term and its gradient as much (30,522 terms: a quarter of a
megabyte), and until the backward pass as long as its activations are kept half a megabyte more; logits of all
positions exist for one chunk at a time, of at most :data:`CELLS`. Pooling by sum keeps every logit of the chunks.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from rerankdistill import devices, representations
from rerankdistill.artifacts import fingerprint
from rerankdistill.cards import Card
from rerankdistill.contracts import Reading
from rerankdistill.encoding import Tokens, locate, map_batches, model_fingerprint, tokenise
from rerankdistill.errors import RerankDistillWarning
from rerankdistill.students.batch import Budget
from rerankdistill.students.kinds._network import fit_attention, run_chunks, without_dropout
from rerankdistill.students.layers import Freeze, Layers, freeze, keep_layers
from rerankdistill.students.splade import flops, l1, load_splade, pooled, routes
from rerankdistill.students.together import shared_out
from rerankdistill.types import FloatArray

if TYPE_CHECKING:
    from torch import Tensor

    from rerankdistill.contracts import Role
    from rerankdistill.encoding import Progress
    from rerankdistill.students.batch import ListBatch

CELLS = 2**26
"""Logits that exist at once."""
HELD = 256
"""Texts whose dense vectors are held while a collection is encoded."""


class SparseOptions(Card):
    """What a sparse student is made from, and what its weights cost it."""

    init: str
    """A masked language model, a SPLADE, or any encoder, which gets a head tied to its word embeddings."""
    revision: str | None = None
    layers: Layers | None = None
    """Keep so many evenly spaced layers, or these, or ``"first:2"``, or ``"last:2"``."""
    query_tokens: int = 64
    doc_tokens: int = 256
    query_prefix: str | None = None
    doc_prefix: str | None = None
    pooling: Literal["max", "sum"] = "max"
    dropout: float | None = 0.0
    """None: the model's own."""
    freeze: Freeze | None = None
    """Leave as they are: ``"embeddings"``, or the embeddings and so many of the lowest layers."""
    threshold: float = Field(default=2.5, ge=0)
    """Of a made-up head: where its weights begin, in standard deviations of its logits."""
    queries: Literal["encoder", "static"] = "encoder"
    """Who reads queries: the network, or a learned weight for each word."""
    static_rate: float = Field(default=100.0, gt=0)
    """Learning rate of static weights, which begin as 1, over the stage's."""
    query_weight: float = Field(default=1e-3, ge=0)
    """What queries' weights cost, added to the loss; static ones cost nothing."""
    doc_weight: float = Field(default=1e-3, ge=0)
    query_cost: Literal["flops", "l1"] = "flops"
    doc_cost: Literal["flops", "l1"] = "flops"
    cost_warmup: float = Field(default=1 / 3, ge=0, le=1)
    """Share of a stage in which the costs rise from nothing, with the square of the steps."""
    query_terms: int = Field(default=0, ge=0)
    """In use, keep so many of a query's heaviest terms; 0: all. Training always sees all."""
    doc_terms: int = Field(default=0, ge=0)


class Kind:
    """A sparse encoder in training."""

    Options = SparseOptions
    layout: Literal["batch", "lists"] = "batch"

    def __init__(self, model: Any, options: SparseOptions, device: devices.Device) -> None:
        import torch

        self.options, self.device, self._model = options, device, model
        self.training_tokens = 0
        """Cut documents to so many tokens in training; 0: as in use."""
        self.together = False
        """Whether every process of a ``torchrun`` reads the same batch, and encodes its share of the texts alone."""
        self.share_done = 1.0
        """How much of the stage is done; training tells."""
        static, self._modules = routes(model)
        self.body, self._pooling = self._modules[0], self._modules[-1]
        self.terms = int(self._pooling.embedding_dimension or self.body.model.get_input_embeddings().weight.shape[0])
        self._pooling.embedding_dimension = self.terms
        self.body.query_length, self.body.document_length = options.query_tokens, options.doc_tokens
        self.static = self._static(static) if options.queries == "static" else None
        self.network = torch.nn.ModuleList([*self._modules, *([self.static] if self.static else [])])
        self.network.to(device.name)
        if options.freeze is not None:
            freeze(self.body.model, options.freeze)

    def _static(self, found: Any) -> Any:
        """The queries' weights, in units of their learning rate."""
        import copy

        import torch
        from sentence_transformers.sparse_encoder.modules import SparseStaticEmbedding

        tokenizer = copy.deepcopy(self.body.tokenizer)
        tokenizer.model_max_length = self.options.query_tokens
        weight = torch.ones(self.terms) if found is None else found.weight.detach().clone().float()
        return SparseStaticEmbedding(tokenizer, weight / self.options.static_rate)

    @classmethod
    def create(cls, options: SparseOptions, device: str = "auto") -> Kind:
        """A new student from its options."""
        model = load_splade(options.init, options.revision, options.threshold)
        _, modules = routes(model)
        if options.layers is not None:
            keep_layers(modules[0].model, options.layers)
        without_dropout(modules[0].model, options.dropout)
        modules[-1].pooling_strategy = options.pooling
        model.similarity_fn_name = "dot"
        for name, prefix in (("query", options.query_prefix), ("document", options.doc_prefix)):
            if prefix is not None:
                model.prompts[name] = prefix
        return cls(model, options, devices.choose(device))

    @classmethod
    def open(cls, folder: Path, options: SparseOptions, device: str = "auto") -> Kind:
        """A student that :meth:`save` wrote."""
        return cls(load_splade(str(folder), None, options.threshold), options, devices.choose(device))

    @staticmethod
    def source_fingerprint(options: SparseOptions) -> str:
        return model_fingerprint(locate(options.init), options.revision)

    @staticmethod
    def index_card(options: SparseOptions) -> dict[str, Any]:  # noqa: ARG004
        """The kind of index that its documents go into."""
        return {"kind": "sparse"}

    def ready(self, training: bool) -> None:
        """Switch between training and inference; the weights stay."""
        self.network.train(training)
        fit_attention(self.body.model, self.device, training)

    def save(self, folder: Path) -> None:
        """A folder that the library opens by itself, cuts texts as here, and prunes where both roles are pruned
        alike; else it is told how many terms to keep, as ``max_active_dims``."""
        from sentence_transformers import SparseEncoder
        from sentence_transformers.base.modules import Router
        from sentence_transformers.sparse_encoder.modules import SparseStaticEmbedding

        modules: list[Any] = self._modules
        if self.static is not None:
            weights = (self.static.weight.detach() * self.options.static_rate).relu()
            queries = SparseStaticEmbedding(self.static.tokenizer, weights.cpu().clone())
            modules = [Router.for_query_document([queries], modules, default_route="document")]
        alike = self.options.query_terms == self.options.doc_terms
        prompts = {name: prompt for name, prompt in dict(self._model.prompts).items() if prompt}
        saved = SparseEncoder(
            modules=modules, device=self._place(), prompts=prompts or None, similarity_fn_name="dot",
            max_active_dims=self.options.doc_terms or None if alike else None,
        )  # fmt: skip
        saved.save_pretrained(str(folder), create_model_card=False)

    def tokens(self, texts: Sequence[str], role: Role, most: int = 0) -> Tokens:
        """The texts with the role's prompt, tokenised and cut to its limit, or to ``most`` where that is less."""
        prompt = self._model.prompts.get("query" if role == "query" else "document") or ""
        asked = self.options.query_tokens if role == "query" else self.options.doc_tokens
        limit = min(asked, int(self.body.max_seq_length or asked), most or asked)
        read = [prompt + text for text in texts]
        if role == "query" and self.static is not None:
            cut = self.static.tokenizer(read, add_special_tokens=False, truncation=True, max_length=limit)
            columns = {name: cut[name] for name in ("input_ids", "attention_mask")}
            return Tokens(columns, dict.fromkeys(columns, 0))
        return tokenise(self.body.tokenizer, read, limit)

    def forward(self, role: Role) -> Callable[[dict[str, Tensor]], Tensor]:
        """What makes ``[n, terms]`` of a batch of tokens."""

        def static(features: dict[str, Tensor]) -> Tensor:
            found: Tensor = self.static(dict(features))["sentence_embedding"]  # type: ignore[misc]
            return (found * self.options.static_rate).relu()

        def encode(features: dict[str, Tensor]) -> Tensor:
            out = dict(features)
            for module in self._modules[:-1]:
                out = module(out)
            return pooled(out["token_embeddings"], features["attention_mask"], self._pooling)

        return static if role == "query" and self.static is not None else encode

    @property
    def most_tokens(self) -> int:
        """Padded tokens whose logits exist at once."""
        return max(256, CELLS // self.terms)

    def embed(self, texts: Sequence[str], role: Role, budget: Budget) -> Tensor:
        """``[len(texts), terms]`` with gradient."""
        held = Budget(min(budget.tokens, self.most_tokens), budget.kept)

        def encode(some: Sequence[str]) -> Tensor:
            tokens = self.tokens(some, role, self.training_tokens if role == "doc" else 0)
            return run_chunks(self.forward(role), tokens, held, self.network, self.device, apart=True)

        return shared_out(texts, encode) if self.together else encode(texts)

    def read(self, batch: ListBatch, budget: Budget, needs: frozenset[str]) -> list[Reading]:
        """``[b, m]``: every query of the batch against every distinct document of it, and what their weights cost."""
        queries, docs = self.embed(batch.queries, "query", budget), self.embed(batch.docs, "doc", budget)
        if not bool(docs.detach().any()):
            what = "the student has no weight left in any document: lower doc_weight or the learning rate"
            warnings.warn(what, RerankDistillWarning, 2)
        among = docs @ docs.T if "docs" in needs else None
        return [Reading(queries @ docs.T, docs=among, cost=self.cost(queries, docs))]

    def cost(self, queries: Tensor, docs: Tensor) -> Tensor:
        """What the step's weights cost, by how much of the stage is done."""
        asked, ways = self.options, {"flops": flops, "l1": l1}
        risen = min(1.0, self.share_done / asked.cost_warmup) ** 2 if asked.cost_warmup else 1.0
        total = asked.doc_weight * ways[asked.doc_cost](docs)
        if self.static is None:
            total = total + asked.query_weight * ways[asked.query_cost](queries)
        return risen * total

    def encoder(self) -> SparseTexts:
        """The same model for inference; shares the weights."""
        self.network.eval()
        return SparseTexts(self)

    def _place(self) -> str:
        return str(next(self.network.parameters()).device)


class SparseTexts:
    """Texts to sparse rows."""

    def __init__(self, student: Kind) -> None:
        self._student, self.model, self.dimension = student, student.network, student.terms

    @cached_property
    def fingerprint(self) -> str:
        """Of the options alone: whoever opens a folder knows what it holds."""
        return fingerprint("sparse", self._student.options.model_dump(mode="json"), self._student.device.dtype)

    def encode(self, texts: Sequence[str], role: Role, progress: Progress | None = None) -> Any:
        """``csr_array [len(texts), terms]`` float32; the product of two rows is the model's similarity."""
        student = self._student
        most = student.options.query_terms if role == "query" else student.options.doc_terms
        order = sorted(range(len(texts)), key=lambda row: (-len(texts[row]), row))
        parts = [representations.sparse_rows([], self.dimension)]
        for start in range(0, len(order), HELD):
            tokens = student.tokens([texts[row] for row in order[start : start + HELD]], role)
            rows = map_batches(tokens, student.forward(role), student.device, student.most_tokens, progress, apart=True)
            parts.append(representations.top_terms(representations.sparse_rows(rows, self.dimension), most))
        return representations.joined(parts)[np.argsort(order)]

    def similarity(self, queries: Any, docs: Any) -> FloatArray:
        """``[q, n]`` products."""
        return representations.dot(queries, docs)
