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
