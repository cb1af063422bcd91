"""The chunks of a training step, each on a core of its own, forwards and backwards.

All cores at one chunk wait for each other after every matrix, and autograd walks back over one chunk after the other.
Here every chunk has a graph of its own, which one thread builds and walks back. Gradients are summed in the order of
the chunks, so that a training repeats itself to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

from rerankdistill import devices

if TYPE_CHECKING:
    from torch import Tensor

Batch = dict[str, "Tensor"]
DROPOUTS = ("dropout_prob", "attention_dropout", "dropout")
"""What modules call a rate of dropout, beside ``p`` of torch's own."""


def cores_for(network: Any, weights: Sequence[Tensor], place: str) -> int:
    """How many cores may work at a step apart; 1 where there is nothing to learn, or where threads would draw from one
    generator of random numbers, in an order that nobody knows."""
    import torch

    if place != "cpu" or not weights or not torch.is_grad_enabled() or _draws(network):
        return 1
    return devices.threads()


def _draws(network: Any) -> bool:
    rates = (vars(module).get(name) for module in network.modules() for name in ("p", *DROPOUTS))
    return network.training and any(isinstance(rate, float) and rate > 0 for rate in rates)


def run_apart(
    run: Callable[[Batch], Tensor],
    batches: Sequence[Batch],
    weights: Sequence[Tensor],
    device: devices.Device,
    cores: int,
) -> Tensor:
    """``[texts, …]``: what ``run`` makes of all batches, in their order.

    Args:
        run: is called in several threads at once.
        weights: what it learns; a gradient reaches these and nothing else.
    """
    import torch

    def forward(batch: Batch) -> Tensor:
        with torch.enable_grad(), device.autocast():
            return run(batch)

    def backward(part: tuple[Tensor, Tensor]) -> Sequence[Tensor | None]:
        found: Sequence[Tensor | None] = torch.autograd.grad(part[0], weights, part[1], allow_unused=True)
        return found

    class Apart(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *_: Tensor) -> Tensor:
            with closing(devices.side_by_side(forward, batches, cores)) as made:
                ctx.parts = list(made)
            return torch.cat([part.detach() for part in ctx.parts])

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
            parts, ctx.parts = ctx.parts, []
            shares = torch.split(gradient, [len(part) for part in parts])
            sums: list[Tensor | None] = [None] * len(weights)
            with closing(devices.side_by_side(backward, list(zip(parts, shares, strict=True)), cores)) as found:
                for some in found:
                    sums = [_plus(one, other) for one, other in zip(sums, some, strict=True)]
            return tuple(sums)

    whole: Tensor = Apart.apply(*weights)  # type: ignore[no-untyped-call]
    return whole


def _plus(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    if one is None or other is None:
        return other if one is None else one
    return one + other  # not in place: autograd may hand out one tensor for two weights
