"""The parts of a sparse encoder (SPLADE): how it is found or made, and how logits become a sparse vector.

A masked language model has the head that SPLADE reads: a logit for each word of its vocabulary at each position. An
encoder without one gets it here: a linear layer that begins as the identity, and a decoder tied to the word embeddings.
That such a head says anything is because an encoder's residual stream still points towards the words that it read; its
logits have no zero, so its bias begins as the negative of a threshold, some standard deviations above what the words of
the vocabulary get for each other.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rerankdistill.encoding import load, load_bi_encoder, locate, tokenise, towers
from rerankdistill.errors import CardError

if TYPE_CHECKING:
    from torch import Tensor

WORDS = 512
"""Words of the vocabulary that a head's threshold, or a projection, is found by."""


def load_splade(init: str, revision: str | None, threshold: float) -> Any:
    """A ``SparseEncoder`` in float32 on the CPU: a saved one, one around a masked language model, or one around an
    encoder with a made-up head."""
    import torch
    from sentence_transformers import SparseEncoder
    from sentence_transformers.base.modules import Dense, Transformer
    from sentence_transformers.sparse_encoder.modules import SpladePooling

    if is_sparse(init, revision):
        model = load(lambda path: SparseEncoder(path, revision=revision, device="cpu"), init)
        tie(model)
        return model
    architectures = _read(init, "config.json", revision).get("architectures") or []
    if any(str(name).endswith("ForMaskedLM") for name in architectures):
        pinned = {"revision": revision}
        kwargs = {"model_kwargs": pinned, "processor_kwargs": pinned, "config_kwargs": pinned}
        body = load(lambda path: Transformer(path, transformer_task="fill-mask", **kwargs), init)
        modules = [body, SpladePooling("max")]
    else:
        body = towers(load_bi_encoder(init, revision))["query"][0]
        words = body.model.get_input_embeddings().weight
        terms, width = words.shape
        states = word_states(body)
        logits = states @ words.detach().T
        bias = -(logits.mean() + threshold * logits.std())
        linear = {"activation_function": torch.nn.Identity(), "module_input_name": "token_embeddings"}
        transform = Dense(width, width, init_weight=torch.eye(width), init_bias=torch.zeros(width), **linear)
        decoder = Dense(width, terms, init_bias=torch.full((terms,), float(bias)), **linear)
        decoder.linear.weight = words
        modules = [body, transform, decoder, SpladePooling("max", embedding_dimension=terms)]
    return SparseEncoder(modules=modules, device="cpu", similarity_fn_name="dot")


def is_sparse(init: str, revision: str | None) -> bool:
    """Whether a model says that it is a ``SparseEncoder``, or has the modules of one."""
    if _read(init, "config_sentence_transformers.json", revision).get("model_type") == "SparseEncoder":
        return True
    parts: Any = _read(init, "modules.json", revision)
    return isinstance(parts, list) and any("Splade" in str(part.get("type")) for part in parts)


def _read(model: str, name: str, revision: str | None) -> Any:
    """A JSON file of a model's folder or repository; an empty table where it has none."""
    from sentence_transformers.util import load_file_path

    found = load_file_path(locate(model), name, revision=revision)
    return json.loads(Path(found).read_text("utf-8")) if found else {}


def routes(model: Any) -> tuple[Any, list[Any]]:
    """A ``SparseEncoder``'s static query embedding, if it has one, and the modules that read a document.

    Raises CardError: it is no SPLADE.
    """
    apart = getattr(model[0], "sub_modules", None)
    modules = list(model.children()) if apart is None else list(apart["document"])
    static = None if apart is None else next((m for m in apart["query"] if hasattr(m, "num_dimensions")), None)
    if not hasattr(modules[-1], "pooling_strategy") or not hasattr(modules[0], "model"):
        what = "the model makes sparse vectors in another way than SPLADE"
        raise CardError(what, where="students: init", fix="name a SPLADE, a masked language model or an encoder")
    return static, modules


def tie(model: Any) -> None:
    """Tie the decoder of a saved made-up head to the word embeddings again, where the two are still equal."""
    import torch

    _, modules = routes(model)
    decoder = getattr(modules[-2], "linear", None)
    if decoder is not None:
        words = modules[0].model.get_input_embeddings().weight
        if words.shape == decoder.weight.shape and torch.equal(words, decoder.weight):
            decoder.weight = words


def word_states(body: Any) -> Tensor:
    """``[pieces, width]`` what a ``Transformer`` makes of some words of its vocabulary, each by itself, the same ones
    every time."""
    import torch

    tokenizer = body.tokenizer
    known = sorted(word for word in tokenizer.get_vocab() if len(word) > 1 and word.isalpha())
    words = known[:: max(1, len(known) // WORDS)][:WORDS]
    tokens = tokenise(tokenizer, words, 16)
    body.eval()
    found = []
    with torch.inference_mode():
        for start in range(0, len(words), 128):
            rows = range(start, min(start + 128, len(words)))
            batch = tokens.batch(list(rows), "cpu")
            special = torch.tensor([[int(n) in tokenizer.all_special_ids for n in row] for row in batch["input_ids"]])
            found.append(body(dict(batch))["token_embeddings"][~special])
    return torch.cat(found).clone()


def pooled(logits: Tensor, mask: Tensor, pooling: Any) -> Tensor:
    """``[n, terms]`` of logits ``[n, tokens, terms]``, as ``SpladePooling`` does, and cheaper in training: of a maximum
    only its place is kept for the gradient, since log(1 + relu(x)) grows with x."""
    import torch

    twice = pooling.activation_function == "log1p_relu"

    def squashed(values: Tensor) -> Tensor:
        once = torch.log1p(torch.relu(values if values.element_size() > 2 else values.float()))
        return torch.log1p(once) if twice else once

    taken = mask.bool()[..., None]
    if pooling.pooling_strategy == "max":
        return squashed(
            logits.masked_fill_(~taken, -torch.inf).max(1).values
        )  # a linear layer needs no output of its own
    return (squashed(logits) * taken).sum(1)


def flops(rows: Tensor) -> Tensor:
    r"""The expected number of products of two texts, relaxed: :math:`\sum_j \bar a_j^2` of the mean weight of each term
    (Paria et al. 2020, arXiv:2004.05665)."""
    return rows.mean(0).square().sum()


def l1(rows: Tensor) -> Tensor:
    """The mean sum of a text's weights."""
    return rows.abs().sum(1).mean()
