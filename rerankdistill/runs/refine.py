r"""A query's vector moved towards what a teacher says of the documents that it found: at test time, for it alone.

.. math:: q \leftarrow q - \mathrm{Adam}\left(\nabla_q\; L\left(c\, D q,\; t\right)\right), \qquad
          c = \frac{\max t - \min t}{\max D q_0 - \min D q_0}

D are the vectors of the documents that the teacher read, t its scores, L any loss on lists; c, taken once at the start,
brings the student's scores to the spread of the teacher's. Searching again with the moved vector finds documents that
the teacher never read: re-ranking alone cannot. Gangi Reddy et al. 2024 (FIRST), arXiv:2406.15657, take a hundred steps
of Adam at 5e-3 on KL, and then twenty at 1e-3 on weighted RankNet; the idea is that of Reddy et al. 2023 (ReFIT),
arXiv:2305.11744.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from rerankdistill.contracts import Loss, Scores
from rerankdistill.errors import DataError
from rerankdistill.types import FloatArray

if TYPE_CHECKING:
    from torch import Tensor

BATCH = 64
"""Queries that are refined together; they do not touch each other."""


def refine_query(
    query_vectors: FloatArray,
    doc_vectors: Sequence[FloatArray],
    teacher_scores: Sequence[FloatArray],
    loss: Loss,
    steps: int = 100,
    learning_rate: float = 5e-3,
    device: str = "cpu",
) -> FloatArray:
    """``[q, d]`` refined query vectors, float32. Zero steps give them back as they were.

    Args:
        query_vectors: ``[q, d]``.
        doc_vectors: for each query ``[n, d]``, of the documents that the teacher read for it.
        teacher_scores: for each query ``[n]``, NaN where the teacher has none. A query with fewer than two scores, or
            with equal ones, stays where it is.
        loss: on lists; given the scores of one batch of queries at a time.

    Raises:
        DataError: another number of lists than queries, or of scores than documents.
    """
    if not len(query_vectors) == len(doc_vectors) == len(teacher_scores):
        what = f"{len(query_vectors)} queries, {len(doc_vectors)} lists of documents, {len(teacher_scores)} of scores"
        raise DataError(what, where="refine_query")
    for vectors, said in zip(doc_vectors, teacher_scores, strict=True):
        if len(vectors) != len(said):
            raise DataError(f"{len(said)} scores for {len(vectors)} documents", where="refine_query")
    refined = np.array(query_vectors, np.float32)
    told = [at for at, scores in enumerate(teacher_scores) if _says_something(scores)]
    for start in range(0, len(told) if steps else 0, BATCH):
        rows = told[start : start + BATCH]
        docs, scores = [doc_vectors[at] for at in rows], [teacher_scores[at] for at in rows]
        refined[rows] = _descend(refined[rows], docs, scores, loss, steps, learning_rate, device)
    return refined


def _says_something(scores: FloatArray) -> bool:
    known = scores[np.isfinite(scores)]
    return len(known) > 1 and bool(known.max() > known.min())


def _descend(
    queries: FloatArray,
    doc_vectors: Sequence[FloatArray],
    teacher_scores: Sequence[FloatArray],
    loss: Loss,
    steps: int,
    learning_rate: float,
    device: str,
) -> FloatArray:
    import torch

    width = max(len(docs) for docs in doc_vectors)
    shape = (len(queries), width)
    docs, teacher = np.zeros((*shape, queries.shape[1]), np.float32), np.full(shape, np.nan, np.float32)
    for row, (own, scores) in enumerate(zip(doc_vectors, teacher_scores, strict=True)):
        docs[row, : len(own)], teacher[row, : len(scores)] = own, scores
    sizes = torch.tensor([len(each) for each in doc_vectors], device=device)
    valid = torch.arange(width, device=device) < sizes[:, None]
    target, block = torch.from_numpy(teacher).to(device), torch.from_numpy(docs).to(device)
    scored = valid & target.isfinite()
    target = torch.where(scored, target, 0.0)
    vectors = torch.tensor(queries, device=device, requires_grad=True)
    optimiser = torch.optim.Adam([vectors], lr=learning_rate)
    scale: Any = None
    for _ in range(steps):
        found = torch.einsum("bnd,bd->bn", block, vectors)
        if scale is None:
            spread = _spread(found.detach(), scored)
            scale = torch.where(spread > 0, _spread(target, scored) / spread, 1.0)
        total, _weight = loss(Scores(found * scale, target, valid, scored, own=valid))
        optimiser.zero_grad()
        torch.autograd.backward(total)  # the sum, not the mean: how many queries there are is nothing to any of them
        optimiser.step()
    moved: FloatArray = vectors.detach().cpu().numpy()
    return moved


def _spread(scores: Tensor, known: Tensor) -> Tensor:
    """``[b, 1]`` the highest minus the lowest score of each row."""
    infinite = float("inf")
    high = scores.masked_fill(~known, -infinite).amax(1, keepdim=True)
    return high - scores.masked_fill(~known, infinite).amin(1, keepdim=True)
