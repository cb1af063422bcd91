"""Smaller students: keep some of an encoder's layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rerankdistill.errors import DataError

COUNTS = ("num_hidden_layers", "n_layers", "num_layers", "n_layer")
"""What configurations call the number of layers."""

PLACES = ("encoder.layer", "transformer.layer", "layers", "encoder.layers", "h", "block")
"""Where models keep their stack of layers, below their base model."""


def evenly(of: int, keep: int) -> list[int]:
    """``keep`` of ``of`` layers, evenly spaced, with the first and (if more than one) the last: DistilBERT's choice."""
    if keep == 1:
        return [0]
    return [round(step * (of - 1) / (keep - 1)) for step in range(keep)]


def keep_layers(model: Any, layers: int | Sequence[int]) -> list[int]:
    """Cut a transformers model, in place, down to some of its layers.

    Args:
        model: any encoder whose layers are one ``ModuleList``.
        layers: how many (evenly spaced), or which.

    Returns:
        The layers that were kept.

    Raises:
        DataError: the architecture's layers cannot be found, or it has not that many.
    """
    import torch

    parent, name = _place(model)
    stack = getattr(parent, name)
    total = len(stack)
    kept = evenly(total, layers) if isinstance(layers, int) else list(layers)
    if not kept or min(kept) < 0 or max(kept) >= total or len(set(kept)) < len(kept):
        raise DataError(f"layers = {layers}: the model has layers 0 to {total - 1}")
    setattr(parent, name, torch.nn.ModuleList(stack[layer] for layer in kept))
    for count in COUNTS:
        if count in vars(model.config):
            setattr(model.config, count, len(kept))
    if isinstance(getattr(model.config, "layer_types", None), list):
        model.config.layer_types = [model.config.layer_types[layer] for layer in kept]
    return kept


def stack_of(model: Any) -> Any:
    """The layers of a model, as its own ``ModuleList``. Raises DataError: they cannot be found."""
    parent, name = _place(model)
    return getattr(parent, name)


def _place(model: Any) -> tuple[Any, str]:
    """What holds a model's layers, and by what name."""
    import torch

    base = getattr(model, model.base_model_prefix, model) if getattr(model, "base_model_prefix", "") else model
    for place in PLACES:
        holder, _, name = place.rpartition(".")
        parent = _walk(base, holder)
        if isinstance(getattr(parent, name, None), torch.nn.ModuleList):
            return parent, name
    raise DataError(
        f"cannot find the layers of a {type(model).__name__}", fix="leave out 'layers', or use a smaller model"
    )


def _walk(base: Any, path: str) -> Any:
    for part in filter(None, path.split(".")):
        base = getattr(base, part, None)
    return base
