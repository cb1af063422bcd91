"""A T5-like encoder-decoder that reads query and document and is scored at the first position it would write.

monoT5 (Nogueira, Jiang, Pradeep, Lin 2020, arXiv:2003.06713) says *true* or *false*; RankT5 (Zhuang et al. 2022,
arXiv:2210.10634) is scored by one token that text never uses: ``tokens = ["<extra_id_10>"]`` and a template that ends
with the document. InRanker (Laitz et al. 2024, arXiv:2401.06910) distils both logits of a large monoT5 into a small
one. Saved as a plain transformers folder.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rerankdistill import devices
from rerankdistill.encoding import load, locate, model_fingerprint
from rerankdistill.errors import DataError
from rerankdistill.prompting import MONOT5, answer_ids
from rerankdistill.students.kinds._network import without_dropout
from rerankdistill.students.kinds._words import SAVED, WordOptions, WordReader, decide, few_rows, instead
from rerankdistill.students.layers import keep_layers

if TYPE_CHECKING:
    from torch import Tensor

WORDS = ("true", "false")


class Seq2SeqOptions(WordOptions):
    """What the student is made from. ``template`` and ``tokens`` are monoT5's where nothing else is said."""

    layers: int | list[int] | None = None
    """Of the encoder."""
    decoder_layers: int | list[int] | None = None


class Kind(WordReader):
    """A sequence-to-sequence re-ranker in training, and in use: a :class:`rerankdistill.contracts.PairScorer`."""

    Options = Seq2SeqOptions
    name = "seq2seq"

    @classmethod
    def create(cls, options: Seq2SeqOptions, device: str = "auto") -> Kind:
        """A new student from its options."""
        student = cls._opened(options.init, options.revision, options, device, cls.source_fingerprint(options))
        model = student.network
        for stack, layers in ((model.encoder, options.layers), (model.decoder, options.decoder_layers)):
            if layers is not None:
                _cut(stack, layers)
        model.config.num_layers, model.config.num_decoder_layers = len(model.encoder.block), len(model.decoder.block)
        return student

    @classmethod
    def open(cls, folder: Path, options: Seq2SeqOptions, device: str = "auto") -> Kind:
        """A student that :meth:`save` wrote."""
        return cls._opened(str(folder), None, options, device, model_fingerprint(str(folder)))

    @staticmethod
    def source_fingerprint(options: Seq2SeqOptions) -> str:
        return model_fingerprint(locate(options.init), options.revision)

    @classmethod
    def _opened(cls, init: str, revision: str | None, options: Seq2SeqOptions, device: str, mark: str) -> Kind:
        model, tokenizer = _load(init, revision)
        without_dropout(model, options.dropout)
        asks = decide(options, getattr(model.config, SAVED, None), MONOT5, WORDS)
        asks = asks.model_copy(update={"token_ids": tuple(answer_ids(tokenizer, asks.tokens, init))})
        return cls(model, tokenizer, options, asks, devices.choose(device), mark)

    def _forward(self, features: dict[str, Tensor]) -> Tensor:
        import torch

        config, ids, output = self.network.config, features["input_ids"], self.network.get_output_embeddings()
        start = config.pad_token_id or 0 if config.decoder_start_token_id is None else config.decoder_start_token_id
        first = torch.full((len(ids), 1), start, dtype=torch.long, device=ids.device)
        with instead(output, lambda hidden: few_rows(output, self.question.token_ids, hidden)):
            logits: Tensor = self.network(**features, decoder_input_ids=first, use_cache=False).logits
        return logits[:, 0]


def _load(init: str, revision: str | None) -> tuple[Any, Any]:
    """Model (float32, on the CPU) and tokenizer. Raises DataError: not a whole T5-like model."""
    import torch
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    def build(path: str) -> Any:
        how = {"revision": revision, "dtype": torch.float32, "output_loading_info": True}
        return AutoModelForSeq2SeqLM.from_pretrained(path, **how)

    model, info = load(build, init)
    if info["missing_keys"]:
        what = f"the checkpoint lacks {len(info['missing_keys'])} of the model's weights"
        raise DataError(what, where=init, fix="name a whole encoder-decoder, or use another kind")
    whole = isinstance(model.get_output_embeddings(), torch.nn.Linear) and hasattr(model, "encoder")
    if not whole or hasattr(model, "final_logits_bias") or not hasattr(model.encoder, "block"):
        raise DataError("no T5-like model", where=init, fix="name a T5, or use another kind of student")
    return model, load(lambda path: AutoTokenizer.from_pretrained(path, revision=revision), init)


def _cut(stack: Any, layers: int | list[int]) -> None:
    """Keep some layers of a T5's encoder or decoder. Its first layer holds the position bias of them all: whoever comes
    first gets it."""
    attention = [block.layer[0].SelfAttention for block in stack.block]
    shared = sum(each.has_relative_attention_bias for each in attention) == 1
    bias = attention[0].relative_attention_bias
    keep_layers(stack, layers)
    if not shared:
        return
    for number, block in enumerate(stack.block):
        each = block.layer[0].SelfAttention
        each.has_relative_attention_bias = number == 0
        if number == 0:
            each.relative_attention_bias = bias
        elif hasattr(each, "relative_attention_bias"):
            del each.relative_attention_bias
