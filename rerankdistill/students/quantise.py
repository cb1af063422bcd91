"""Vectors as an index of few bytes keeps them, in the training loop: forwards a vector is what its bytes say, backwards
the rounding is passed over (Bengio, Léonard, Courville 2013, arXiv:1308.3432), so that a student learns vectors that
lose little. ``int8`` takes a byte for each dimension, ``binary`` a bit.

The same functions make the vectors that a report measures.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

Bits = Literal["int8", "binary"]
STEPS = 255
"""Between the lowest and the highest of 256 values."""
BITS: dict[Bits | None, int] = {None: 32, "int8": 8, "binary": 1}
"""What one dimension takes."""


def quantised(vectors: Tensor, bits: Bits, of_documents: bool) -> Tensor:
    """``[n, d]`` what is left of vectors, with the gradient of the identity.

    Documents are kept together: each dimension of ``int8`` is cut into equal steps between the lowest and the highest
    value that it has among them. A query comes alone, and its own largest value decides the steps. ``binary`` keeps
    signs, at one height for all vectors: the one that leaves their mean length as it is.
    """
    kept = vectors.detach()
    kept = _signs(kept) if bits == "binary" else _steps(kept) if of_documents else _own_steps(kept)
    return kept + (vectors - vectors.detach())


def _signs(vectors: Tensor) -> Tensor:
    import torch

    height = vectors.norm(dim=-1).mean() / vectors.shape[-1] ** 0.5
    return torch.where(vectors < 0, -height, height)


def _steps(vectors: Tensor) -> Tensor:
    low, high = vectors.amin(0), vectors.amax(0)
    step = ((high - low) / STEPS).clamp_min(1e-12)
    return low + ((vectors - low) / step).round() * step


def _own_steps(vectors: Tensor) -> Tensor:
    step = (vectors.abs().amax(-1, keepdim=True) / (STEPS // 2)).clamp_min(1e-12)
    return (vectors / step).round() * step
