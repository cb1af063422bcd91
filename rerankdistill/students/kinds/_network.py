"""What the kinds of student do alike to a transformers model."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rerankdistill.encoding import Tokens, bucket, plan_batches

if TYPE_CHECKING:
    from torch import Tensor

    from rerankdistill.students.batch import Budget

RATES = (
    "hidden_dropout_prob", "attention_probs_dropout_prob", "dropout", "attention_dropout", "mlp_dropout",
    "embedding_dropout", "classifier_dropout", "seq_classif_dropout", "dropout_rate",
)  # fmt: skip
"""What configurations call their dropout rates."""


FEWEST = 16
"""Texts that one forward of a training step takes at least: smaller ones are not worth their overhead."""


def run_chunks(run: Callable[[dict[str, Tensor]], Tensor], tokens: Tokens, budget: Budget, place: str) -> Tensor:
    """``[texts, …]`` a network's outputs with gradient, chunk by chunk, in the order of the texts.

    Past ``budget.kept`` every chunk is a checkpoint of its own: the gradients are those of the whole batch, exactly,
    and no more than one chunk's activations are alive.
    """
    import torch
    from torch.utils.checkpoint import checkpoint

    chunks = plan_batches(tokens.lengths, budget.tokens, FEWEST)
    twice = len(chunks) > 1 and sum(map(bucket, tokens.lengths)) > budget.kept
    batches = [tokens.batch(rows, place) for rows in chunks]
    parts = [checkpoint(run, batch, use_reentrant=False) if twice else run(batch) for batch in batches]
    order = torch.tensor([row for rows in chunks for row in rows], device=parts[0].device)
    return torch.cat(parts)[torch.argsort(order)]


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
        for name in ("dropout_prob", "attention_dropout", "dropout"):
            if isinstance(vars(module).get(name), float):
                setattr(module, name, rate)


def fit_attention(model: Any, device: str, training: bool) -> None:
    """Choose the attention kernel, in place: on a CPU the fused one is the faster forwards, but its backward in
    bfloat16 takes three times as long as the plain one's."""
    if device == "cpu" and hasattr(model, "set_attn_implementation") and getattr(model, "_supports_sdpa", False):
        model.set_attn_implementation("eager" if training else "sdpa")
