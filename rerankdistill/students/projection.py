"""A learned map behind a student's vectors, for a stage that compares them with vectors of another dimension.

The student is still read where it was; in the stage a linear layer carries its vectors to the teacher's dimension, and
is then thrown away, or kept as the last module of the student's folder (Zhang et al. 2024, Jasper and Stella,
arXiv:2412.19048). To a number of dimensions of one's own choice it is a head that shortens vectors: only losses on
relations can train it, for they compare vectors of any two dimensions.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rerankdistill.errors import CardError


def width_of(student: Any) -> int:
    """Dimensions of a student's vectors."""
    return int(student.network.get_embedding_dimension())


def projects(student: Any) -> bool:
    """Whether a layer can be put behind this student's vectors: it is one plain sentence-transformers model."""
    from sentence_transformers import SentenceTransformer

    return isinstance(getattr(student, "network", None), SentenceTransformer)


@contextmanager
def projected(student: Any, width: int, keep: bool, only: bool) -> Iterator[None]:
    """Put a linear layer to ``width`` dimensions behind a student while the block runs.

    Args:
        keep: leave it there, so that it is saved with the student.
        only: the rest of the student does not learn.

    Raises:
        CardError: the student is no plain bi-encoder.
    """
    if not projects(student):
        what = "only the vectors of a student of kind 'bi_encoder' can be projected"
        raise CardError(what, where="project", fix="leave project out, and match a teacher of the student's dimension")
    import torch
    from sentence_transformers.base.modules import Dense

    network = student.network
    still = [weight for weight in network.parameters() if weight.requires_grad] if only else []
    dense = Dense(width_of(student), width, activation_function=torch.nn.Identity())
    name = str(len(network))
    network.add_module(name, dense.to(next(network.parameters()).device))
    for weight in still:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in still:
            weight.requires_grad_(True)
        if not keep:
            del network[len(network) - 1]
