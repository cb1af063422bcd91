"""What the kinds of student do alike to a transformers model."""

from __future__ import annotations

from typing import Any

RATES = (
    "hidden_dropout_prob", "attention_probs_dropout_prob", "dropout", "attention_dropout", "mlp_dropout",
    "embedding_dropout", "classifier_dropout", "seq_classif_dropout",
)  # fmt: skip
"""What configurations call their dropout rates."""


FEWEST = 16
"""Texts that one forward of a training step takes at least: smaller ones are not worth their overhead."""


def without_dropout(model: Any, rate: float | None) -> None:
    """Set every dropout of a model, in place; None leaves the model's own."""
    import torch

    if rate is None:
        return
    for name in RATES:
        if isinstance(vars(model.config).get(name), float):
            setattr(model.config, name, rate)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = rate
        for name in ("dropout_prob", "attention_dropout"):
            if isinstance(vars(module).get(name), float):
                setattr(module, name, rate)


def fit_attention(model: Any, device: str, training: bool) -> None:
    """Choose the attention kernel, in place: on a CPU the fused one is the faster forwards, but its backward in
    bfloat16 takes three times as long as the plain one's."""
    if device == "cpu" and hasattr(model, "set_attn_implementation") and getattr(model, "_supports_sdpa", False):
        model.set_attn_implementation("eager" if training else "sdpa")
