"""Tiny random causal language models with a tokenizer of single bytes, made by the tests."""

from __future__ import annotations

from pathlib import Path

from rerankdistill.scores.card import Context, parse_teacher
from rerankdistill.scores.llm.local import LocalModel
from rerankdistill.scores.llm.open import LocalOptions

TEMPLATE = (
    "{% if messages[0].role != 'system' %}<|start|>system\nBe brief.<|end|>\n{% endif %}"
    "{% for m in messages %}<|start|>{{ m.role }}\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)
GEMMA_LIKE = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "{% for m in messages %}<|start|>{{ m.role }}\n{{ m.content | trim }}<|end|>\n{% endfor %}<|start|>model\n"
)
SPECIAL = ["<|pad|>", "<|bos|>", "<|start|>", "<|end|>"]


def byte_tokenizer(template: str | None = None, dummy_space: bool = False):
    """A token a byte. ``dummy_space``: a space is put before every text, as SentencePiece does."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE({token: n for n, token in enumerate([*SPECIAL, *letters])}, []))
    if dummy_space:
        made.normalizer = normalizers.Prepend(" ")
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = decoders.ByteLevel()
    names = {"pad_token": SPECIAL[0], "bos_token": SPECIAL[1], "eos_token": SPECIAL[3]}
    more = {"additional_special_tokens": SPECIAL[2:3]}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, **names, **more)
    tokenizer.chat_template = template
    return tokenizer


def save_llama(folder: Path, template: str | None = TEMPLATE, seed: int = 0, **sizes) -> str:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    shape |= {"num_key_value_heads": 2, "max_position_embeddings": 512, "vocab_size": 260, "initializer_range": 0.2}
    torch.manual_seed(seed)
    LlamaForCausalLM(LlamaConfig(**shape | {"eos_token_id": 3, "pad_token_id": 0} | sizes)).save_pretrained(folder)
    byte_tokenizer(template).save_pretrained(folder)
    return str(folder)


def card(model: str, **fields):
    return parse_teacher({"name": "t", "kind": "causal", "model": model, "scale": "logit"} | fields, "test")


def local(model: str, context: Context | None = None, total: int | None = None, **options) -> LocalModel:
    """The model in float32 on the CPU."""
    made = card(model, dtype="float32", lengths={"total": total} if total else {})
    return LocalModel(made, context or Context(device="cpu"), LocalOptions(**options))
