"""The ways in which a student that makes one vector of a text is read, in training and afterwards.

The whole vector; its beginnings (Kusupati et al. 2022, *Matryoshka Representation Learning*, arXiv:2205.13147); with
documents in few bytes; and what it has made of a text after some of its layers (early exits, weighed the more the
deeper: ModularStarEncoder, Gurioli et al. 2025, arXiv:2503.03008). One forward gives all of them; the loss of a step is
the sum of what each costs, by its weight. A weight of 0 is not trained, and still measured in the report: what a way of
reading costs a student that did not learn it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from pydantic import model_validator

from rerankdistill.cards import Card
from rerankdistill.contracts import Reading
from rerankdistill.errors import CardError
from rerankdistill.students.quantise import BITS, Bits, quantised

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Way:
    """One way of reading a student.

    Attributes:
        width: so many of a vector's first dimensions; 0: all.
        bits: what documents are kept in; queries too, if ``both``.
        depth: after so many layers; 0: after all.
    """

    weight: float = 1.0
    width: int = 0
    bits: Bits | None = None
    both: bool = False
    depth: int = 0

    @property
    def name(self) -> str:
        """How a report calls it, behind the student's name."""
        return f"@{self.width}" if self.width else f"exit {self.depth}" if self.depth else self.bits or ""

    def narrowed(self, vectors: Tensor, cosine: bool, of_documents: bool) -> Tensor:
        """``[n, d']`` what is left of whole vectors ``[n, d]``."""
        import torch

        if self.width:
            vectors = vectors[:, : self.width]
            vectors = torch.nn.functional.normalize(vectors, dim=-1) if cosine else vectors
        if self.bits and (of_documents or self.both):
            vectors = quantised(vectors, self.bits, of_documents)
        return vectors

    def vector_bytes(self, dimension: int) -> int:
        """What a document's vector takes, of a model with so many dimensions."""
        return -(-(self.width or dimension) * BITS[self.bits] // 8)


class WaysOptions(Card):
    """In which further ways a student is read."""

    dims: tuple[int, ...] = ()
    """Beginnings of the vectors that are vectors too, the whole one first: ``[384, 128, 64]``. The saved folder is
    loaded with ``truncate_dim``."""
    dim_weights: tuple[float, ...] = ()
    """One for each of ``dims``; empty: 1 each."""
    quantise: tuple[Bits, ...] = ()
    """Learn with documents in one byte (``int8``) or one bit (``binary``) a dimension, beside those in full."""
    quantise_weights: tuple[float, ...] = ()
    quantise_queries: bool = False
    """Keep queries in as few bytes; they cost an index nothing, so this is for engines that want both alike."""
    exits: tuple[int, ...] = ()
    """After so many layers the student is a smaller one, which is saved too, in ``exits/``."""
    exit_weights: tuple[float, ...] = ()
    """One for each of ``exits``; empty: the share of the layers below it."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        for name in ("dim", "exit"):
            numbers = getattr(self, f"{name}s")
            if len(set(numbers)) < len(numbers) or any(number < 1 for number in numbers):
                raise ValueError(f"{name}s = {list(numbers)}: give numbers above 0, each once")
        ways = {"dim_weights": self.dims, "quantise_weights": self.quantise, "exit_weights": self.exits}
        for name, many in ways.items():
            weights = getattr(self, name)
            if (weights and len(weights) != len(many)) or any(weight < 0 for weight in weights):
                raise ValueError(f"{name} = {list(weights)}: give {len(many)} numbers, none below 0")
        if self.dims and self.dims[0] != max(self.dims):
            raise ValueError(f"dims = {list(self.dims)}: the whole vector comes first")
        if self.dim_weights and not self.dim_weights[0]:
            raise ValueError("dim_weights: the whole vector is always trained")
        return self

    def ways(self) -> list[Way]:
        """All of them, the whole vector first; its exits' weights are still to be told where the card has none."""
        weights = self.dim_weights or (1.0,) * max(1, len(self.dims))
        found = [Way(weights[0])]
        found += [Way(weight, width=width) for width, weight in zip(self.dims[1:], weights[1:], strict=True)]
        weights = self.quantise_weights or (1.0,) * len(self.quantise)
        both = self.quantise_queries
        found += [Way(weight, bits=bits, both=both) for bits, weight in zip(self.quantise, weights, strict=True)]
        weights = self.exit_weights or (1.0,) * len(self.exits)
        return found + [Way(weight, depth=depth) for depth, weight in zip(self.exits, weights, strict=True)]

    def trained_ways(self, dimension: int, layers: int) -> list[Way]:
        """The ways that a loss is paid for.

        Raises:
            CardError: the model has not so many dimensions or layers.
        """
        if self.dims and self.dims[0] != dimension:
            what = f"dims = {list(self.dims)}, and the model's vectors have {dimension} dimensions"
            raise CardError(what, where="students: dims", fix=f"begin with {dimension}")
        if any(depth >= layers for depth in self.exits):
            what = f"exits = {list(self.exits)}, and the model has {layers} layers"
            raise CardError(what, where="students: exits", fix="an exit is before the last layer")
        found = self.ways()
        if self.exits and not self.exit_weights:
            found = [Way(way.depth / layers, depth=way.depth) if way.depth else way for way in found]
        return [way for way in found if way.weight]


def compared(queries: Tensor, docs: Tensor, ways: Sequence[Way], cosine: bool, among_docs: bool) -> list[Reading]:
    """A reading for each way.

    Args:
        queries: ``[b, l, d]``, and docs ``[m, l, d]``: their vectors by layer, the whole model's last. ``l`` is 1 where
            nobody asks for more, or one of the two has no layers to tell.
        among_docs: whether the loss reads how alike documents are.
    """
    found = []
    for way in ways:
        own, theirs = (side[:, way.depth - 1 if side.shape[1] > 1 else 0] for side in (queries, docs))
        own, theirs = way.narrowed(own, cosine, False), way.narrowed(theirs, cosine, True)
        found.append(Reading(own @ theirs.T, way.weight, docs=theirs @ theirs.T if among_docs else None))
    return found
