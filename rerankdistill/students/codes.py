"""Codebooks that learn: what they make of a vector, with a gradient.

Forwards every part of a vector is replaced by its nearest codeword, as the index will do it. Backwards the choice is
taken for a softmax over all codewords, nearer ones weighing more (the straight-through estimate of Chen et al. 2020,
"Differentiable Product Quantization", arXiv:1908.09756), so that a codeword is moved by the scores of the documents
that it stands for and by those that it nearly stood for.

What learns is the difference from the codebooks that training began with: it is zero at first, so that weight decay
holds on to them, and its scale is the ratio of this part's learning rate to the stage's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn.functional import normalize

from rerankdistill.codebooks import Codebooks

if TYPE_CHECKING:
    from torch import Tensor


class Quantiser(torch.nn.Module):
    """The codebooks as a module.

    Args:
        books: what to begin with.
        codeword_rate: learning rate of the codewords, over the stage's.
        centroid_rate: learning rate of the centroids, over the stage's.
        temperature: of the softmax, over the mean lead that the nearest has before the others: so it suits vectors of
            any length.
    """

    def __init__(self, books: Codebooks, codeword_rate: float, centroid_rate: float, temperature: float) -> None:
        super().__init__()
        self.rates, self.temperature = (codeword_rate, centroid_rate), temperature
        self.register_buffer("first_words", torch.tensor(books.codewords))
        self.words_step = torch.nn.Parameter(torch.zeros_like(self.first_words))
        self.lists = books.centroids is not None
        if books.centroids is not None:
            self.register_buffer("first_centroids", torch.tensor(books.centroids))
            self.centroids_step = torch.nn.Parameter(torch.zeros_like(self.first_centroids))
        rotation = np.eye(books.dimension, dtype=np.float32) if books.rotation is None else books.rotation
        self.turns = books.rotation is not None
        self.register_buffer("rotation", torch.tensor(rotation))

    first_words: Tensor
    first_centroids: Tensor
    rotation: Tensor

    @property
    def codewords(self) -> Tensor:
        return self.first_words + self.rates[0] * self.words_step

    @property
    def centroids(self) -> Tensor:
        return normalize(self.first_centroids + self.rates[1] * self.centroids_step, dim=-1)

    def forward(self, vectors: Tensor) -> tuple[Tensor, Tensor | None]:
        """``[n, d]`` vectors to what is remembered of them, and to their centroids, where there are lists."""
        turned = vectors.float() @ self.rotation.T if self.turns else vectors.float()
        coarse, rest = None, turned
        if self.lists:
            centroids = self.centroids
            coarse = _chosen(centroids[None], turned @ centroids.T[None], self.temperature)[0]
            rest = turned - coarse.detach()
        words = self.codewords
        parts = rest.reshape(len(rest), words.shape[0], words.shape[2]).transpose(0, 1)  # [m, n, d / m]
        nearness = 2 * parts @ words.mT - words.square().sum(-1).unsqueeze(1)  # [m, n, words]
        fine = _chosen(words, nearness, self.temperature).transpose(0, 1).flatten(1)
        whole = fine if coarse is None else coarse + fine
        if not self.turns:
            return whole, coarse
        return whole @ self.rotation, None if coarse is None else coarse @ self.rotation

    def books(self) -> Codebooks:
        """What was learnt, as numbers."""
        with torch.no_grad():
            words, rotation = self.codewords.cpu().numpy(), self.rotation.cpu().numpy()
            centroids = self.centroids.cpu().numpy() if self.lists else None
        return Codebooks(words, centroids, rotation if self.turns else None)


def _chosen(values: Tensor, nearness: Tensor, temperature: float) -> Tensor:
    """``[m, n, d]``: of ``values [m, k, d]`` the nearest by ``nearness [m, n, k]``, with a softmax's gradient."""
    best = nearness.detach().max(-1)
    rows = torch.arange(len(values), device=values.device)[:, None]
    spread = (best.values.unsqueeze(-1) - nearness.detach()).mean().clamp_min(1e-12)
    soft = torch.softmax(nearness / (temperature * spread), -1) @ values.detach()
    return values[rows, best.indices] + soft - soft.detach()
