"""LoRA (Hu et al. 2021, arXiv:2106.09685): beside each frozen matrix two narrow ones are trained, whose product is
added into it when the student is saved, so that nobody needs to know of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from pydantic import Field

from rerankdistill.cards import Card
from rerankdistill.errors import DataError
from rerankdistill.kinds import missing
from rerankdistill.students.layers import Layers, chosen, stack_of

if TYPE_CHECKING:
    from torch import Tensor

NAME = "default"


class LoraOptions(Card):
    """How a model is adapted; the product is scaled by ``alpha / r``."""

    r: int = Field(default=16, gt=0)
    alpha: float = Field(default=32, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    targets: tuple[str, ...] = ()
    """Names of the linear layers that are adapted, as ``["q_proj", "v_proj"]``; empty: all but the output layer."""
    layers: Layers | None = None
    """In which of the model's layers: how many, evenly spaced, or which, or ``last:8``, below which nothing is computed
    backwards; None: in all."""


def adapt(model: Any, options: LoraOptions, head: bool = False) -> None:
    """Freeze a transformers model and put adapters beside its matrices, in place; one that has them stays as it is.

    Nothing changes yet: the second matrix of each adapter is zero.

    Args:
        head: what the model has above its base is new, and trained as it is.

    Raises:
        MissingDependency: peft is not installed.
        DataError: no layer has such a name or number.
    """
    if is_adapted(model):
        return
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ModuleNotFoundError as error:
        raise missing(error, "lora") from error
    above = _above(model) if head else {}
    layers = None if options.layers is None else chosen(len(stack_of(model)), options.layers, "lora.layers")
    targets = list(options.targets) or ("all-linear" if layers is None else _linear(stack_of(model)))
    how = LoraConfig(
        r=options.r, lora_alpha=options.alpha, lora_dropout=options.dropout, target_modules=targets,
        layers_to_transform=layers,
        exclude_modules=rf"({'|'.join(above)})(\..+)?" if above else None,
    )  # fmt: skip
    try:
        inject_adapter_in_model(how, model, NAME)
    except ValueError as error:
        fix = f"its linear layers are called {', '.join(_linear(model))}"
        raise DataError(f"lora.targets = {list(options.targets)}: the model has no such layer", fix=fix) from error
    for module in above.values():
        module.requires_grad_(True)
    for parameter in model.parameters():
        if parameter.requires_grad:  # what is trained is in float32, whatever the frozen weights are in
            parameter.data = parameter.data.float()


def _above(model: Any) -> dict[str, Any]:
    return {name: module for name, module in model.named_children() if name != model.base_model_prefix}


def is_adapted(model: Any) -> bool:
    """Whether :func:`adapt` has been here."""
    return any(hasattr(module, "lora_A") for module in model.modules())


def merged_weights(model: Any) -> dict[str, Tensor]:
    """A model's weights by the names that they have without adapters, with these added in; the model stays as it is."""
    weights = {
        name.replace(".base_layer.", "."): value for name, value in model.state_dict().items() if ".lora_" not in name
    }
    for name, module in model.named_modules():
        if hasattr(module, "lora_A") and hasattr(module, "get_delta_weight"):
            weight = weights[f"{name}.weight"]
            wide = weight if weight.element_size() > 4 else weight.float()
            weights[f"{name}.weight"] = (wide + module.get_delta_weight(NAME).to(wide.dtype)).to(weight.dtype)
    return weights


@contextmanager
def saved_plain(model: Any) -> Iterator[None]:
    """For a while a model that has adapters saves itself as one that has none, with these added in."""
    if not is_adapted(model):
        yield
        return
    model.save_pretrained = partial(model.save_pretrained, state_dict=merged_weights(model))
    try:
        yield
    finally:
        del model.save_pretrained


def _linear(model: Any) -> list[str]:
    import torch

    modules = model.named_modules()
    return sorted({name.rpartition(".")[2] for name, module in modules if isinstance(module, torch.nn.Linear)})
