"""What one stage of training learns from, as a sequence of items and a way to lay out a step.

The order is fixed beforehand from the seed, so every arm of a comparison sees the same queries in the same steps and a
resumed training continues where it was cut.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from rerankdistill.contracts import Role
from rerankdistill.students.batch import ListBatch, LiveScores, Texts, VectorBatch, list_batch
from rerankdistill.students.layer_scores import LayerLessons
from rerankdistill.types import Example, FloatArray

Pick = Callable[[Example, int], Example]
"""``(example, epoch) -> example`` cut to the list that one step can afford."""


class Rows(Protocol):
    """A matrix of which rows are read."""

    def __getitem__(self, rows: Any, /) -> FloatArray: ...


class StageData(Protocol):
    """``count`` items; ``item`` fetches one, ``collate`` lays out a step. What has a method ``beside(student)`` gives a
    module that is trained along with the student in this stage, or None."""

    @property
    def count(self) -> int: ...

    def item(self, row: int, epoch: int) -> Any: ...

    def collate(self, items: Sequence[Any]) -> Any: ...


@dataclass(frozen=True)
class Lists:
    """Ranked lists with teacher scores."""

    examples: Sequence[Example]
    pick: Pick
    texts: Texts
    layout: Literal["batch", "lists"]
    live: LiveScores | None = None
    inside: LayerLessons | None = None

    @property
    def count(self) -> int:
        return len(self.examples)

    def item(self, row: int, epoch: int) -> Example:
        return self.pick(self.examples[row], epoch)

    def collate(self, items: Sequence[Example]) -> ListBatch:
        return list_batch(items, self.texts, self.layout, self.live, self.inside)


@dataclass(frozen=True)
class Representations:
    """Texts and a teacher's vectors of them ``[n, d]``: no query, no label."""

    texts: Sequence[str]
    targets: Rows
    role: Role = "doc"

    @property
    def count(self) -> int:
        return len(self.texts)

    def item(self, row: int, epoch: int) -> int:  # noqa: ARG002
        return row

    def collate(self, items: Sequence[int]) -> VectorBatch:
        import torch

        targets = np.asarray(self.targets[list(items)], np.float32)
        return VectorBatch([self.texts[row] for row in items], self.role, torch.from_numpy(targets))


class Schedule(Sequence[Any]):
    """The items of a whole stage in training order: epoch after epoch, each shuffled by (seed, epoch)."""

    def __init__(self, data: StageData, total: int, seed: int) -> None:
        self.data, self.total, self.seed = data, total, seed
        self._orders: dict[int, Any] = {}

    def __len__(self) -> int:
        return self.total

    def __getitem__(self, at: Any) -> Any:
        epoch, place = divmod(int(at), self.data.count)
        if epoch not in self._orders:
            self._orders[epoch] = np.random.default_rng([self.seed, epoch]).permutation(self.data.count)
        return self.data.item(int(self._orders[epoch][place]), epoch)
