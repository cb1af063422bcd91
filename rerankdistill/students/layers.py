"""Smaller students: keep some of an encoder's layers, for good or for a while; and leave the lowest as they are."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, Literal

from pydantic import Field

from rerankdistill.errors import DataError

Layers = Annotated[int, Field(gt=0)] | list[int] | Annotated[str, Field(pattern=r"^(first|last):[1-9]\d*$")]
"""How many layers are kept, evenly spaced; or which; or so many of the ``first:`` or ``last:``."""

Freeze = Annotated[int, Field(gt=0)] | Literal["embeddings"]
"""What is not trained: the embeddings, or these and so many of the lowest layers."""

COUNTS = ("num_hidden_layers", "n_layers", "num_layers", "n_layer")
"""What configurations call the number of layers."""

PLACES = ("encoder.layer", "transformer.layer", "layers", "encoder.layers", "h", "block")
"""Where models keep their stack of layers, below their base model."""

NORMS = ("final_norm", "final_layer_norm", "ln_f", "norm")
"""What models call a normalisation that comes after their last layer."""


def evenly(of: int, keep: int) -> list[int]:
    """``keep`` of ``of`` layers, evenly spaced, with the first and (if more than one) the last: DistilBERT's choice."""
    if keep == 1:
        return [0]
    return [round(step * (of - 1) / (keep - 1)) for step in range(keep)]


def chosen(of: int, layers: int | str | Sequence[int], field: str = "layers") -> list[int]:
    """Which of ``of`` layers are meant. Raises DataError: there are not that many, or one is named twice."""
    if isinstance(layers, int):
        found = evenly(of, layers)
    elif isinstance(layers, str):
        end, _, count = layers.partition(":")
        start = 0 if end == "first" else of - int(count)
        found = list(range(start, start + int(count)))
    else:
        found = list(layers)
    if not found or min(found) < 0 or max(found) >= of or len(set(found)) < len(found):
        raise DataError(f"{field} = {layers}: the model has layers 0 to {of - 1}")
    return found


def keep_layers(model: Any, layers: int | str | Sequence[int]) -> list[int]:
    """Cut a transformers model, in place, down to some of its layers.

    Args:
        model: any encoder whose layers are one ``ModuleList``.
        layers: how many (evenly spaced), or which, or ``first:N``, or ``last:N``.

    Returns:
        The layers that were kept.

    Raises:
        DataError: the architecture's layers cannot be found, or it has not that many.
    """
    import torch

    parent, name = _place(model)
    stack = getattr(parent, name)
    kept = chosen(len(stack), layers)
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


def last_norm(model: Any) -> Callable[[Any], Any]:
    """What a model does to the output of its last layer; for most nothing."""
    parent, _ = _place(model)
    for holder, name in itertools.product((parent, _base(model)), NORMS):
        if callable(found := getattr(holder, name, None)):
            return found  # type: ignore[no-any-return]
    return lambda state: state


@contextmanager
def lowest(model: Any, count: int) -> Iterator[None]:
    """For a while the model is its lowest ``count`` layers."""
    parent, name = _place(model)
    whole, config = getattr(parent, name), model.config
    before = {key: vars(config)[key] for key in (*COUNTS, "layer_types") if key in vars(config)}
    keep_layers(model, list(range(count)))
    try:
        yield
    finally:
        setattr(parent, name, whole)
        for key, value in before.items():
            setattr(config, key, value)


def freeze(model: Any, what: int | str) -> None:
    """Keep the embeddings, and so many of the lowest layers, as they are. Raises DataError: it has not that many."""
    base = _base(model)
    embeddings = getattr(base, "embeddings", None) or model.get_input_embeddings()
    embeddings.requires_grad_(False)
    if isinstance(what, str):
        return
    layers = stack_of(model)
    if what > len(layers):
        raise DataError(f"freeze = {what}: the model has {len(layers)} layers")
    for layer in layers[:what]:
        layer.requires_grad_(False)


def _base(model: Any) -> Any:
    return getattr(model, model.base_model_prefix, model) if getattr(model, "base_model_prefix", "") else model


def _place(model: Any) -> tuple[Any, str]:
    """What holds a model's layers, and by what name."""
    import torch

    base = _base(model)
    for place in PLACES:
        holder, _, name = place.rpartition(".")
        parent = _walk(base, holder)
        if isinstance(getattr(parent, name, None), torch.nn.ModuleList):
            return parent, name
    what = f"cannot find the layers of a {type(model).__name__}"
    raise DataError(what, fix="leave out 'layers', or use a smaller model")


def _walk(base: Any, path: str) -> Any:
    for part in filter(None, path.split(".")):
        base = getattr(base, part, None)
    return base
