"""Late interaction: a vector for every token; each word of a query finds its best match in the document.

MaxSim (Khattab, Zaharia 2020, ColBERT, arXiv:2004.12832): s(q, d) = sum over query tokens i of max over document tokens
j of E_q[i] · E_d[j], with unit vectors of few dimensions; taught by a cross-encoder's scores as in ColBERTv2 (Santhanam
et al. 2021, arXiv:2112.01488). Punctuation of documents takes no part. Queries are not filled up with ``[MASK]`` (query
expansion): a query's tokens are its own.

Saved as a plain folder of sentence-transformers' ``MultiVectorEncoder``, which a teacher of kind ``late_interaction``
opens too.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from rerankdistill import devices
from rerankdistill.artifacts import fingerprint
from rerankdistill.cards import Card
from rerankdistill.contracts import Reading
from rerankdistill.encoding import (
    Progress,
    Tokens,
    bucket,
    load,
    load_bi_encoder,
    locate,
    makes_token_vectors,
    map_batches,
    model_fingerprint,
    tokenise,
    towers,
)
from rerankdistill.errors import CardError
from rerankdistill.representations import WORST, TokenVectors, maxsim
from rerankdistill.students.kinds._network import fit_attention, run_chunks, without_dropout
from rerankdistill.students.layers import Freeze, Layers, freeze, keep_layers
from rerankdistill.students.lora import LoraOptions, adapt, saved_plain
from rerankdistill.types import FloatArray

if TYPE_CHECKING:
    from torch import Tensor

    from rerankdistill.contracts import Role
    from rerankdistill.students.batch import Budget, ListBatch

DIMENSION = 64
CELLS = 2**24
"""Products of query tokens and document tokens that one step holds at a time."""
TOKENS = "token_embeddings"


class LateInteractionOptions(Card):
    """What a late-interaction student is made from."""

    init: str
    """Any encoder, or a ColBERT-like model, which keeps its projection, prompts and marks: Hugging Face id, folder or
    ``package:NAME/PATH``."""
    revision: str | None = None
    layers: Layers | None = None
    """Keep so many evenly spaced layers, or these, or ``"first:2"``, or ``"last:2"``."""
    dimension: int | None = Field(default=None, gt=0)
    """Of a token's vector. None: 64, or that of a ColBERT-like model."""
    similarity: Literal["maxsim", "meanmaxsim"] = "maxsim"
    """``meanmaxsim``: divided by the number of the query's tokens."""
    query_tokens: int = 64
    doc_tokens: int = 256
    query_prefix: str | None = None
    doc_prefix: str | None = None
    dropout: float | None = 0.0
    """None: the model's own."""
    freeze: Freeze | None = None
    """Leave as they are: ``"embeddings"``, or the embeddings and so many of the lowest layers."""
    lora: LoraOptions | None = None
    """Train adapters and the projection alone; they are added into the weights when the student is saved."""


class TokenEncoder:
    """Texts to the vectors of their tokens: the model in use.

    Args:
        model: a loaded ``MultiVectorEncoder``; its own cuts of queries and documents hold.
        token_budget: padded tokens a batch.
    """

    def __init__(self, model: Any, mark: str, device: devices.Device, token_budget: int = 16384) -> None:
        self.model, self.device, self.token_budget = model.to(device.name).eval(), device, token_budget
        most = int(model.max_seq_length or 512)
        own: dict[Role, int | None] = {"query": model[0].query_length, "doc": model[0].document_length}
        self.max_tokens = {role: min(limit or most, most) for role, limit in own.items()}
        self.dimension = int(model.get_embedding_dimension())
        self.fingerprint = fingerprint("token encoder", mark, self.max_tokens, device.dtype, dict(model.prompts))

    def tokens(self, texts: Sequence[str], role: Role, most: int = 0) -> Tokens:
        """The texts with the role's prompt, tokenised and cut to its limit, or to ``most`` where that is less."""
        prompt = self.model.prompts.get("query" if role == "query" else "document") or ""
        limit = min(self.max_tokens[role], most) if most else self.max_tokens[role]
        return tokenise(self.model.tokenizer, [prompt + text for text in texts], limit)

    def forward(self, features: dict[str, Tensor], role: Role) -> Tensor:
        """``[n, length, d + 1]``: each token's vector, and behind it 1 where the token takes part, else 0."""
        import torch

        made = self.model(dict(features), task="query" if role == "query" else "document")
        vectors = made[TOKENS]
        return torch.cat([vectors, made["attention_mask"].to(vectors.dtype)[..., None]], -1)

    def encode(self, texts: Sequence[str], role: Role, progress: Progress | None = None) -> TokenVectors:
        """The vectors of every token that takes part, float32."""
        if not texts:
            return TokenVectors.of([], self.dimension)
        tokens = self.tokens(texts, role)
        rows = map_batches(
            tokens, lambda batch: self.forward(batch, role), self.device, self.token_budget, progress, apart=True
        )
        parts = [np.asarray(row[row[:, -1] > 0, :-1], np.float32) for row in rows]
        return TokenVectors.of(parts, self.dimension)

    def similarity(self, queries: TokenVectors, docs: TokenVectors) -> FloatArray:
        """``[q, n]`` MaxSim of what :meth:`encode` made of queries and of documents."""
        found = maxsim(queries, docs)
        if self.model.similarity_fn_name == "meanmaxsim":
            found = found / np.maximum(queries.lengths, 1).astype(np.float32)[:, None]
        return found


class Kind:
    """A late-interaction model in training; in use it is a :class:`TokenEncoder`."""

    Options = LateInteractionOptions
    layout: Literal["batch", "lists"] = "batch"

    def __init__(self, model: Any, options: LateInteractionOptions, device: devices.Device) -> None:
        self.network, self.options, self.device = model, options, device
        self.training_tokens = 0
        """Cut documents to so many tokens in training; 0: as in use."""
        self._encoder = TokenEncoder(model, "in training", device)
        if options.freeze is not None:
            freeze(model[0].model, options.freeze)

    @classmethod
    def create(cls, options: LateInteractionOptions, device: str = "auto") -> Kind:
        """A new student from its options; torch's seed decides a new projection."""
        if makes_token_vectors(options.init, options.revision):
            model = _opened(options.init, options.revision)
            _check_dimension(model, options)
        else:
            model = _projected(options)
        body = model[0]
        body.query_length, body.document_length, body.query_expansion = options.query_tokens, options.doc_tokens, None
        if options.layers is not None:
            keep_layers(body.model, options.layers)
        without_dropout(body.model, options.dropout)
        model.similarity_fn_name = options.similarity
        for name, prefix in (("query", options.query_prefix), ("document", options.doc_prefix)):
            if prefix is not None:
                model.prompts[name] = prefix
        return cls(model, options, devices.choose(device))

    @classmethod
    def open(cls, folder: Path, options: LateInteractionOptions, device: str = "auto") -> Kind:
        """A student that :meth:`save` wrote, to be trained further or used."""
        return cls(_opened(str(folder)), options, devices.choose(device))

    @staticmethod
    def source_fingerprint(options: LateInteractionOptions) -> str:
        return model_fingerprint(locate(options.init), options.revision)

    @staticmethod
    def index_card(options: LateInteractionOptions) -> dict[str, Any]:  # noqa: ARG004
        """The kind of index that its documents go into. Its scores are sums even where the student's are means: the
        order is the same."""
        return {"kind": "maxsim"}

    @staticmethod
    def as_teacher(options: LateInteractionOptions) -> dict[str, Any]:
        """What the card of a trained one says when it teaches: how it is opened, and what its scores are."""
        lengths = {"query": options.query_tokens, "doc": options.doc_tokens}
        return {"kind": "late_interaction", "scale": "similarity", "lengths": lengths}

    def ready(self, training: bool) -> None:
        """Switch between training and inference; the weights stay."""
        if training and self.options.lora:
            adapt(self.network[0].model, self.options.lora)
        self.network.train(training)
        fit_attention(self.network[0].model, self.device, training)

    def save(self, folder: Path) -> None:
        with saved_plain(self.network[0].model):
            self.network.save_pretrained(str(folder), create_model_card=False)

    def embed(self, texts: Sequence[str], role: Role, budget: Budget) -> tuple[Tensor, Tensor]:
        """``[n, length, d]`` the vectors of tokens with gradient, float32 at least, and ``[n, length]`` which of them
        take part. All are padded to the longest text."""
        import torch

        tokens = self._encoder.tokens(texts, role, self.training_tokens if role == "doc" else 0)
        width = bucket(max(tokens.lengths))

        def run(features: dict[str, Tensor]) -> Tensor:
            made = self._encoder.forward(features, role)
            return torch.nn.functional.pad(made, (0, 0, 0, width - made.shape[1]))  # chunks are joined

        made = run_chunks(run, tokens, budget, self.network, self.device, apart=True)
        made = made if made.element_size() > 4 else made.float()
        counts = made[..., -1] > 0
        longest = int(counts.nonzero()[:, 1].max()) + 1 if counts.any() else 1
        return made[:, :longest, :-1], counts[:, :longest]

    def read(self, batch: ListBatch, budget: Budget, needs: frozenset[str]) -> list[Reading]:  # noqa: ARG002
        """``[b, m]``: every query of the batch against every distinct document of it."""
        queries, asked = self.embed(batch.queries, "query", budget)
        docs, counts = self.embed(batch.docs, "doc", budget)
        scores = summed_matches(queries, asked, docs, counts)
        if self.options.similarity == "meanmaxsim":
            scores = scores / asked.sum(1, keepdim=True).clamp_min(1)
        return [Reading(scores)]

    def encoder(self) -> TokenEncoder:
        """The same model for inference; shares the weights."""
        self.network.eval()
        return self._encoder


def summed_matches(queries: Tensor, asked: Tensor, docs: Tensor, counts: Tensor) -> Tensor:
    """``[b, m]`` MaxSim of padded queries ``[b, l, d]`` and documents ``[m, k, d]``; ``asked`` and ``counts`` say which
    tokens take part.

    A few documents at a time: of the products only the place of each best match is kept for the backward pass.
    """
    import torch

    flat = queries.flatten(0, 1)
    step = max(1, CELLS // max(1, len(flat) * docs.shape[1]))
    parts = []
    for start in range(0, len(docs), step):
        part, takes = docs[start : start + step], counts[start : start + step]
        products = (flat @ part.flatten(0, 1).T).view(len(flat), len(part), -1)
        best = products.masked_fill(~takes, WORST).max(-1).values
        parts.append((best.view(*queries.shape[:2], -1) * asked[..., None]).sum(1))
    return torch.cat(parts, 1)


def _opened(model: str, revision: str | None = None) -> Any:
    """A late-interaction model in float32 on the CPU; its vectors have length one."""
    from sentence_transformers import MultiVectorEncoder
    from sentence_transformers.base.modules import Normalize

    found = load(lambda path: MultiVectorEncoder(path, revision=revision, device="cpu"), model).float()
    if not any(isinstance(each, Normalize) and each.module_input_name == TOKENS for each in found):
        found.append(Normalize(module_input_name=TOKENS))
    return found


def _projected(options: LateInteractionOptions) -> Any:
    """An encoder with a new projection of its tokens' vectors."""
    import torch
    from sentence_transformers import MultiVectorEncoder
    from sentence_transformers.base.modules import Normalize
    from sentence_transformers.base.modules.dense import Dense
    from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask

    source = towers(load_bi_encoder(options.init, options.revision))["query"]
    body, tokenizer = source[0], source.tokenizer
    wide, narrow = int(body.get_embedding_dimension()), options.dimension or DIMENSION
    # orthonormal rows keep what they can of the encoder's own similarities, so that it ranks before it is trained
    rows = torch.eye(wide) if narrow == wide else torch.nn.init.orthogonal_(torch.empty(narrow, wide))
    dense = Dense(wide, narrow, False, torch.nn.Identity(), rows, module_input_name=TOKENS)
    unknown = (None, tokenizer.unk_token_id)
    marks = [mark for mark in string.punctuation if tokenizer.convert_tokens_to_ids(mark) not in unknown]
    parts = [body, dense, MultiVectorMask(marks), Normalize(module_input_name=TOKENS)]
    prompts = {name: source.prompts.get(name) or "" for name in ("query", "document")}
    return MultiVectorEncoder(modules=parts, device="cpu", prompts=prompts)


def _check_dimension(model: Any, options: LateInteractionOptions) -> None:
    own = int(model.get_embedding_dimension())
    if options.dimension not in (None, own):
        what = f"dimension = {options.dimension}, and the model's tokens have {own} dimensions"
        raise CardError(what, where=options.init, fix="leave dimension out: its projection is kept")
