"""Orders, ranks and gains of lists: what the losses that look at positions have in common.

Ranks begin at 1. A cell that is not in use comes last in an order, counts in nobody's rank, and has gain zero.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from rerankdistill.losses.guards import Lists

Grades = Literal["teacher", "label"]
"""Where graded relevance comes from: one over the teacher's rank, or the labels."""

Gain = Literal["exponential", "linear"]
"""What a grade y is worth: 2^y - 1, or y."""

_NOWHERE = -1e30
"""Stands for minus infinity, whose gradient through a cumulative logarithm would be NaN."""


def order(values: Tensor, use: Tensor) -> Tensor:
    """``[b, k]`` columns by descending value; of equal values the lower column first; cells not in use last."""
    return torch.where(use, -values, torch.inf).argsort(dim=1, stable=True)


def by_column(values: Tensor, use: Tensor) -> Tensor:
    """``[b, k]`` ranks by descending value; of equal values the lower column ranks higher."""
    return (order(values, use).argsort(dim=1) + 1).to(values.dtype)


def average(values: Tensor, use: Tensor) -> Tensor:
    """``[b, k]`` ranks by descending value; equal values share the mean of their places."""
    others = use[:, None, :]
    above = ((values[:, None, :] > values[:, :, None]) & others).sum(2)
    equal = ((values[:, None, :] == values[:, :, None]) & others).sum(2)
    return (above + (equal.to(values.dtype) + 1) / 2).clamp(min=1)


def approximate(values: Tensor, use: Tensor, alpha: float) -> Tensor:
    """``[b, k]`` ranks that have a gradient: one, and for every other document how surely it stands above."""
    others = use[:, None, :] & use[:, :, None] & ~torch.eye(use.shape[1], dtype=torch.bool, device=use.device)
    margins = torch.where(others, alpha * (values[:, None, :] - values[:, :, None]), 0.0)
    return 1 + torch.where(others, margins.sigmoid(), 0.0).sum(2)


def steps(student: Tensor, use: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    """How surprised a Plackett-Luce model is at each pick, when documents are picked in the order of ``columns``.

    Returns:
        ``[b, k]`` negative log-probability of the document at each place among those not yet picked, and ``[b, k]``
        whether there is a document at that place.
    """
    picked, there = student.gather(1, columns), use.gather(1, columns)
    left = torch.where(there, picked, _NOWHERE).flip(1).logcumsumexp(1).flip(1)
    return torch.where(there, left - picked, 0.0), there


def grades(lists: Lists, source: Grades) -> Tensor:
    """``[b, k]`` graded relevance: the labels, or 1, 1/2, 1/3, … down the teacher's order."""
    if source == "label":
        return lists.label
    return torch.where(lists.use, 1 / average(lists.teacher, lists.use), 0.0)


def shares(grades: Tensor, gain: Gain, k: int | None = None) -> tuple[Tensor, Tensor]:
    """Gains as shares of the best DCG (of the best ``k`` documents) that a list allows; a grade of 0 gains nothing.

    Returns:
        ``[b, k]`` gains over the ideal DCG, and ``[b]`` whether a list holds anything of worth; elsewhere shares are 0.
    """
    gains = grades
    if gain == "exponential":  # over 2^highest, which cancels: grades in the hundreds would overflow
        highest = grades.amax(1, keepdim=True)
        gains = torch.exp2(grades - highest) - torch.exp2(-highest)
    places = torch.arange(1, gains.shape[1] + 1, device=gains.device, dtype=gains.dtype)
    best = gains.sort(dim=1, descending=True).values / torch.log2(1 + places)
    ideal = best[:, :k].sum(1, keepdim=True)
    return gains / torch.where(ideal > 0, ideal, 1.0), ideal[:, 0] > 0
