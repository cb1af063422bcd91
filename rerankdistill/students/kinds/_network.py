"""What the kinds of student do alike to a transformers model."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rerankdistill.devices import Device
from rerankdistill.encoding import Tokens, bucket, core_budget, plan_batches
from rerankdistill.students.side_by_side import DROPOUTS, cores_for, run_apart

if TYPE_CHECKING:
    from torch import Tensor

    from rerankdistill.students.batch import Budget

RATES = (
    "hidden_dropout_prob", "attention_probs_dropout_prob", "dropout", "attention_dropout", "mlp_dropout",
    "embedding_dropout", "classifier_dropout", "seq_classif_dropout", "dropout_rate",
)  # fmt: skip
"""What configurations call their dropout rates."""


FEWEST, FEWEST_APART = 16, 4
"""Texts that one forward of a training step takes at least: smaller ones are not worth their overhead. Of one core
that works apart: as it waits for no other, fewer are."""


def run_chunks(
    run: Callable[[dict[str, Tensor]], Tensor],
    tokens: Tokens,
    budget: Budget,
    network: Any,
    device: Device,
    apart: bool = False,
) -> Tensor:
    """``[texts, …]`` a network's outputs with gradient, chunk by chunk, in the order of the texts.

    Past ``budget.kept`` every chunk is a checkpoint of its own: the gradients are those of the whole batch, exactly,
    and no more than one chunk's activations are alive.

    Args:
        run: reaches no other weights than those of ``network``.
        apart: it may be called in several threads at once; on a processor every core then has chunks of its own.
    """
    import torch
    from torch.utils.checkpoint import checkpoint

    weights = [weight for weight in network.parameters() if weight.requires_grad]
    place = str(next(network.parameters()).device)
    cores = cores_for(network, weights, place) if apart else 1
    most = core_budget(tokens.lengths, budget.tokens, cores)
    chunks = plan_batches(tokens.lengths, most, FEWEST if cores == 1 else FEWEST_APART)
    twice = len(chunks) > 1 and sum(map(bucket, tokens.lengths)) > budget.kept

    def once(batch: dict[str, Tensor]) -> Tensor:
        found: Tensor = checkpoint(run, batch, use_reentrant=False) if twice else run(batch)
        return found

    batches = [tokens.batch(rows, place) for rows in chunks]
    if cores > 1 and len(chunks) > 1:
        whole = run_apart(once, batches, weights, device, cores)
    else:
        with device.autocast():
            whole = torch.cat([once(batch) for batch in batches])
    order = torch.tensor([row for rows in chunks for row in rows], device=whole.device)
    return whole[torch.argsort(order)]


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
        for name in DROPOUTS:
            if isinstance(vars(module).get(name), float):
                setattr(module, name, rate)


def fit_attention(model: Any, device: Device, training: bool) -> None:
    """Choose the attention kernel, in place: on a CPU the fused one is the faster, but its backward in bfloat16 takes
    three times as long as the plain one's."""
    if device.name == "cpu" and hasattr(model, "set_attn_implementation") and getattr(model, "_supports_sdpa", False):
        model.set_attn_implementation("eager" if training and device.dtype == "bfloat16" else "sdpa")
