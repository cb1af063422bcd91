"""Vectors of the same texts: what the losses on relations among them have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field
from torch import Tensor
from torch.nn.functional import normalize

from rerankdistill.errors import CardError

Dims = tuple[Annotated[int, Field(gt=0)], ...]
"""Lengths of the student's prefixes (Matryoshka); empty: the whole vector."""


def cosines(vectors: Tensor, others: Tensor | None = None) -> Tensor:
    """``[t, t]`` among the vectors, or ``[t, k]`` with others."""
    unit = normalize(vectors, eps=1e-8)
    return unit @ (unit if others is None else normalize(others, eps=1e-8)).T


def prefixes(student: Tensor, dims: Sequence[int], loss: str) -> list[Tensor]:
    """The student's vectors cut to each length. Raises CardError for one that they have not."""
    dims = dims or (student.shape[1],)
    if max(dims) > student.shape[1]:
        what = f"dims reach {max(dims)}, the student's vectors have {student.shape[1]}"
        raise CardError(what, where=f"loss {loss}")
    return [student[:, :dim] for dim in dims]
