"""Two documents of a list at a time: what the losses that compare pairs have in common.

A pair (i, j) is a cell of ``[b, k, k]``; a cell that is no pair is replaced by zero before any arithmetic.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Reduction = Literal["mean_query", "mean_pairs"]
"""Mean over a list's pairs and then over lists, so that long lists do not dominate; or over all pairs of the batch."""


def both(use: Tensor) -> Tensor:
    """``[b, k, k]`` whether i and j are in use."""
    return use[:, :, None] & use[:, None, :]


def above(values: Tensor, use: Tensor) -> Tensor:
    """``[b, k, k]`` whether both are in use and i has the higher value; ties make no pair."""
    return both(use) & (values[:, :, None] > values[:, None, :])


def gaps(values: Tensor, pairs: Tensor) -> Tensor:
    """``[b, k, k]`` value of i minus value of j; 0 where there is no pair."""
    return torch.where(pairs, values[:, :, None] - values[:, None, :], 0.0)


def reduce(losses: Tensor, pairs: Tensor, reduction: Reduction) -> tuple[Tensor, Tensor]:
    """``(sum, weight)`` of what each pair costs; anything may stand where there is no pair, if it is finite."""
    losses = torch.where(pairs, losses, 0.0)
    counts = pairs.sum((1, 2)).to(losses.dtype)
    if reduction == "mean_pairs":
        return losses.sum(), counts.sum()
    return (losses.sum((1, 2)) / counts.clamp(min=1)).sum(), (counts > 0).sum().to(losses.dtype)
