"""Several processes of a ``torchrun`` train on one batch: in-batch negatives across devices.

Every process lays out the batch of all of them, encodes its share of the texts and hears the other vectors from the
others. All then compute the same loss, of everything. Its gradient reaches a process through the texts that it encoded
itself; the shares add up to the gradient of one process with the whole batch, whatever the loss (as in the contrastive
pre-training of Radford et al. 2021, arXiv:2103.00020, where each computes its part of the similarities).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


def processes() -> int:
    """How many processes take part; 1 where there is no group of them."""
    from torch import distributed

    return int(distributed.get_world_size()) if distributed.is_available() and distributed.is_initialized() else 1


def shared_out(texts: Sequence[str], encode: Callable[[Sequence[str]], Tensor]) -> Tensor:
    """``[len(texts), …]``: every process encodes each n-th text. The gradient is that of its own texts."""
    import torch
    from torch import distributed

    world = processes()
    if world == 1:
        return encode(texts)
    rank, most = distributed.get_rank(), -(-len(texts) // world)
    mine = [texts[at % len(texts)] for at in range(rank, most * world, world)]  # all have as many
    own = encode(mine)
    parts = [torch.empty_like(own) for _ in range(world)]
    distributed.all_gather(parts, own.detach().contiguous())
    parts[rank] = own
    return torch.stack(parts, 1).flatten(0, 1)[: len(texts)]


def summed(weight: Tensor) -> Tensor:
    """A weight, added up over the processes."""
    import torch
    from torch import distributed

    total = weight.detach().to(torch.float64, copy=True)
    distributed.all_reduce(total)
    return total.to(weight.dtype)


def grown(value: Tensor, times: int) -> Tensor:
    """The same value with so many times its gradient, of which a wrapper for many devices takes the mean."""
    return value + (times - 1) * (value - value.detach())


class Blocks(Sequence[int]):
    """A schedule by places: whatever part of a step a process is given, it lays out all of it.

    Args:
        schedule: the items in order, those of one step together.
        size: items of a step, over all processes.
        collate: lays out items.
    """

    def __init__(self, schedule: Sequence[Any], size: int, collate: Callable[[Sequence[Any]], Any]) -> None:
        self._schedule, self._size, self._collate = schedule, size, collate

    def __len__(self) -> int:
        return len(self._schedule)

    def __getitem__(self, at: Any) -> Any:
        return int(at)

    def collate(self, places: Sequence[int]) -> Any:
        """The batch of the step that these places belong to."""
        start = places[0] // self._size * self._size
        return self._collate([self._schedule[at] for at in range(start, start + self._size)])
