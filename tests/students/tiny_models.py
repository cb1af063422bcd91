"""Models of a few thousand weights whose vocabulary is the test's own words, saved as their libraries save them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def words_of(texts: Iterable[str]) -> list[str]:
    return sorted({word for text in texts for word in re.findall(r"\w+|[^\w\s]", text.lower())})


def tiny_encoder(folder: Path, texts: Iterable[str], seed: int = 0, layers: int = 3, family: str = "bert") -> Path:
    """A random encoder with 32 dimensions and its tokenizer, as a transformers folder."""
    import torch
    from transformers import BertConfig, BertModel, DistilBertConfig, DistilBertModel

    torch.manual_seed(seed)
    vocabulary = SPECIAL + words_of(texts)
    size = {"vocab_size": len(vocabulary), "max_position_embeddings": 128}
    if family == "bert":
        config = BertConfig(
            hidden_size=32, num_attention_heads=2, num_hidden_layers=layers, intermediate_size=64, **size
        )
        model: Any = BertModel(config)
    else:
        model = DistilBertModel(DistilBertConfig(dim=32, n_heads=2, n_layers=layers, hidden_dim=64, **size))
    model.save_pretrained(folder)
    tokenizer(folder, vocabulary).save_pretrained(folder)
    return folder


def tokenizer(folder: Path, vocabulary: list[str]) -> Any:
    from transformers import BertTokenizerFast

    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", "utf-8")
    return BertTokenizerFast(vocab={word: at for at, word in enumerate(vocabulary)}, model_max_length=128)


def tiny_bi_encoder(folder: Path, texts: Iterable[str], seed: int = 0, layers: int = 3) -> Path:
    """The same as a sentence-transformers folder with mean pooling."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Pooling, Transformer

    raw = tiny_encoder(folder.with_name(f"{folder.name}-raw"), texts, seed, layers)
    body = Transformer(str(raw), max_seq_length=128)
    model = SentenceTransformer(modules=[body, Pooling(32, "mean")], device="cpu", similarity_fn_name="cosine")
    model.save_pretrained(str(folder), create_model_card=False)
    return folder


def tiny_mlm(folder: Path, texts: Iterable[str], seed: int = 0, layers: int = 2) -> Path:
    """A random masked language model of 32 dimensions."""
    import torch
    from transformers import BertConfig, BertForMaskedLM

    torch.manual_seed(seed)
    vocabulary = SPECIAL + words_of(texts)
    sizes = {"hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": layers, "intermediate_size": 64}
    config = BertConfig(**sizes, vocab_size=len(vocabulary), max_position_embeddings=128, initializer_range=0.2)
    BertForMaskedLM(config).save_pretrained(folder)
    tokenizer(folder, vocabulary).save_pretrained(folder)
    return folder


def tiny_cross_encoder(folder: Path, texts: Iterable[str], seed: int = 0, layers: int = 2) -> Path:
    """A random cross-encoder with one label."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(seed)
    vocabulary = SPECIAL + words_of(texts)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_attention_heads=2,
        num_hidden_layers=layers,
        intermediate_size=64,
        max_position_embeddings=128,
        num_labels=1,
        initializer_range=0.5,
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    tokenizer(folder, vocabulary).save_pretrained(folder)
    return folder


SPACE = "\N{LOWER ONE EIGHTH BLOCK}"
ASKED = ["Query", "Document", "Relevant", "Answer", ":", "true", "false", "yes", "no"]


def word_tokenizer(texts: Iterable[str], ends: bool) -> Any:
    """A token a word, as SentencePiece would spell it; ``ends``: with ``</s>`` at the end, as T5's."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = ["<pad>", "</s>", "<unk>", "<extra_id_0>"]
    words = list(dict.fromkeys([*ASKED, *words_of(texts)]))
    vocabulary = [*special, SPACE, *(SPACE + word for word in words), *words]
    made = Tokenizer(models.WordLevel({word: n for n, word in enumerate(vocabulary)}, "<unk>"))
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme="always"), pre_tokenizers.Split(":", "isolated")]
    )
    if ends:
        made.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    names = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    inputs = ["input_ids", "attention_mask"]
    return PreTrainedTokenizerFast(tokenizer_object=made, model_max_length=512, model_input_names=inputs, **names)


def tiny_t5(folder: Path, texts: Iterable[str], seed: int = 0, layers: int = 2, **more: Any) -> Path:
    """A random T5 of 32 dimensions."""
    import torch
    from transformers import T5Config, T5ForConditionalGeneration

    torch.manual_seed(seed)
    reads = word_tokenizer(texts, ends=True)
    sizes = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": layers, "num_heads": 4, "vocab_size": len(reads)}
    ids = {"decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 1}
    T5ForConditionalGeneration(T5Config(**sizes, **ids, **more)).save_pretrained(folder)
    reads.save_pretrained(folder)
    return folder


def tiny_llama(folder: Path, texts: Iterable[str], seed: int = 0, layers: int = 2, **more: Any) -> Path:
    """A random Llama of 32 dimensions, without a chat template."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    reads = word_tokenizer(texts, ends=False)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": layers, "num_attention_heads": 4}
    sizes |= {"num_key_value_heads": 2, "max_position_embeddings": 512, "vocab_size": len(reads)}
    ids = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 1}
    config = LlamaConfig(**sizes, **ids, initializer_range=0.2, **{"tie_word_embeddings": True, **more})
    LlamaForCausalLM(config).save_pretrained(folder)
    reads.save_pretrained(folder)
    return folder
