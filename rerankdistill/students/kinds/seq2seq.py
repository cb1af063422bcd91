"""A T5-like encoder-decoder that reads query and document and is scored at the first position it would write.

monoT5 (Nogueira, Jiang, Pradeep, Lin 2020, arXiv:2003.06713) says *true* or *false*; RankT5 (Zhuang et al. 2022,
arXiv:2210.10634) is scored by one token that text never uses: ``tokens = ["<extra_id_10>"]`` and a template that ends
with the document. InRanker (Laitz et al. 2024, arXiv:2401.06910) distils both logits of a large monoT5 into a small
one. Saved as a plain transformers folder.

No T5 at hand: an encoder gets a new decoder, made of its own first layers with new attention to what the encoder read
(Rothe, Narayan, Severyn 2020, arXiv:1907.12461). It has to learn what to answer from the start.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rerankdistill import devices
from rerankdistill.encoding import instead, load, locate, model_fingerprint
from rerankdistill.errors import DataError
from rerankdistill.prompting import MONOT5, answer_ids
from rerankdistill.students.kinds._network import without_dropout
from rerankdistill.students.kinds._words import SAVED, Output, WordOptions, WordReader, decide, few_rows
from rerankdistill.students.layers import keep_layers

if TYPE_CHECKING:
    from torch import Tensor

WORDS = ("true", "false")


class Seq2SeqOptions(WordOptions):
    """What the student is made from. ``template`` and ``tokens`` are monoT5's where nothing else is said."""

    output: Output | None = None
    layers: int | list[int] | None = None
    """Of the encoder."""
    decoder_layers: int | list[int] | None = None
    """None: all of them; of a new decoder, the first."""


class Kind(WordReader):
    """A sequence-to-sequence re-ranker in training, and in use: a :class:`rerankdistill.contracts.PairScorer`."""

    Options = Seq2SeqOptions
    name = "seq2seq"

    @classmethod
    def create(cls, options: Seq2SeqOptions, device: str = "auto") -> Kind:
        """A new student from its options."""
        model, tokenizer, fresh = _load(options.init, options.revision)
        decoder_layers = 1 if fresh and options.decoder_layers is None else options.decoder_layers
        for stack, layers in zip(_stacks(model), (options.layers, decoder_layers), strict=True):
            if layers is not None:
                _cut(stack, layers)
        _count_layers(model)
        return cls._made(model, tokenizer, options, options.init, device, cls.source_fingerprint(options))

    @classmethod
    def open(cls, folder: Path, options: Seq2SeqOptions, device: str = "auto") -> Kind:
        """A student that :meth:`save` wrote."""
        model, tokenizer, _ = _load(str(folder), None)
        return cls._made(model, tokenizer, options, str(folder), device, model_fingerprint(str(folder)))

    @staticmethod
    def source_fingerprint(options: Seq2SeqOptions) -> str:
        return model_fingerprint(locate(options.init), options.revision)

    @classmethod
    def _made(cls, model: Any, tokenizer: Any, options: Seq2SeqOptions, where: str, device: str, mark: str) -> Kind:
        without_dropout(model, options.dropout)
        asks = decide(options, getattr(model.config, SAVED, None), MONOT5, WORDS)
        asks = asks.model_copy(update={"token_ids": tuple(answer_ids(tokenizer, asks.tokens, where))})
        return cls(model, tokenizer, options, asks, devices.choose(device), mark)

    def _forward(self, features: dict[str, Tensor]) -> Tensor:
        import torch

        config, ids, output = self.network.config, features["input_ids"], self.network.get_output_embeddings()
        start = config.pad_token_id or 0 if config.decoder_start_token_id is None else config.decoder_start_token_id
        first = torch.full((len(ids), 1), start, dtype=torch.long, device=ids.device)
        with instead(output, lambda hidden: few_rows(output, self.question.token_ids, hidden)):
            logits: Tensor = self.network(**features, decoder_input_ids=first, use_cache=False).logits
        return logits[:, 0]


def _load(init: str, revision: str | None) -> tuple[Any, Any, bool]:
    """Model (float32, on the CPU), tokenizer, and whether the decoder is a new one.

    Raises:
        DataError: neither a whole encoder-decoder nor an encoder.
    """
    import torch
    from transformers import AutoConfig, AutoModelForSeq2SeqLM, AutoTokenizer

    def build(path: str) -> Any:
        how = {"revision": revision, "dtype": torch.float32, "output_loading_info": True}
        return AutoModelForSeq2SeqLM.from_pretrained(path, **how)

    tokenizer = load(lambda path: AutoTokenizer.from_pretrained(path, revision=revision), init)
    if _is_encoder(load(lambda path: AutoConfig.from_pretrained(path, revision=revision), init)):
        return load(lambda path: _with_decoder(path, revision, tokenizer), init), tokenizer, True
    model, info = load(build, init)
    if info["missing_keys"]:
        what = f"the checkpoint lacks {len(info['missing_keys'])} of the model's weights"
        raise DataError(what, where=init, fix="name a whole encoder-decoder, or use another kind")
    if not isinstance(model.get_output_embeddings(), torch.nn.Linear) or hasattr(model, "final_logits_bias"):
        what = "no T5-like model: its output layer is not one matrix"
        raise DataError(what, where=init, fix="name a T5, or use another kind of student")
    return model, tokenizer, False


def _is_encoder(config: Any) -> bool:
    """Whether a model fills masks, as BERT does, and its like can also write, as a decoder must."""
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    )

    both = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.keys() & MODEL_FOR_MASKED_LM_MAPPING_NAMES.keys()
    return not config.is_encoder_decoder and config.model_type in both


def _with_decoder(path: str, revision: str | None, tokenizer: Any) -> Any:
    """An encoder, with a decoder of as many layers."""
    import torch
    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, EncoderDecoderModel

    config = AutoConfig.from_pretrained(path, revision=revision)
    config.is_decoder = config.add_cross_attention = True
    how = {"revision": revision, "dtype": torch.float32}
    encoder = AutoModel.from_pretrained(path, **how)
    decoder = AutoModelForCausalLM.from_pretrained(path, config=config, **how)
    model = EncoderDecoderModel(encoder=encoder, decoder=decoder)
    model.config.pad_token_id = tokenizer.pad_token_id
    model.config.decoder_start_token_id = tokenizer.cls_token_id
    return model


def _stacks(model: Any) -> tuple[Any, Any]:
    """Encoder and decoder. Raises DataError: they cannot be told apart."""
    found = tuple(
        getattr(model, name, None) or getattr(model.base_model, name, None) for name in ("encoder", "decoder")
    )
    if None in found:
        raise DataError(f"cannot find encoder and decoder of a {type(model).__name__}", fix="name a T5")
    return found[0], found[1]


def _count_layers(model: Any) -> None:
    """A T5 keeps the numbers of its layers in one configuration beside those of its stacks."""
    encoder, decoder = _stacks(model)
    if hasattr(encoder, "block"):
        model.config.num_layers, model.config.num_decoder_layers = len(encoder.block), len(decoder.block)


def _cut(stack: Any, layers: int | list[int]) -> None:
    """Keep some layers of an encoder or decoder. The first layer of a T5's holds the position bias of them all: whoever
    comes first gets it."""
    attention = [block.layer[0].SelfAttention for block in getattr(stack, "block", ())]
    keep_layers(stack, layers)
    if sum(each.has_relative_attention_bias for each in attention) != 1:
        return
    bias = attention[0].relative_attention_bias
    for number, block in enumerate(stack.block):
        each = block.layer[0].SelfAttention
        each.has_relative_attention_bias = number == 0
        if number == 0:
            each.relative_attention_bias = bias
        elif hasattr(each, "relative_attention_bias"):
            del each.relative_attention_bias
