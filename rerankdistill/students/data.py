"""What one stage of training learns from, as a sequence of items and a way to lay out a step.

The order is fixed beforehand from the seed, so every arm of a comparison sees the same queries in the same steps and a
resumed training continues where it was cut.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, Protocol

import numpy as np

from rerankdistill.contracts import Role
from rerankdistill.students.batch import ListBatch, LiveScores, Texts, VectorBatch, list_batch
from rerankdistill.students.layer_scores import LayerLessons
from rerankdistill.types import Example, FloatArray, IntArray

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
    hide_positive: bool = False

    @property
    def count(self) -> int:
        return len(self.examples)

    def item(self, row: int, epoch: int) -> Example:
        return self.pick(self.examples[row], epoch)

    def collate(self, items: Sequence[Example]) -> ListBatch:
        return list_batch(items, self.texts, self.layout, self.live, self.inside, self.hide_positive)


@dataclass(frozen=True)
class Representations:
    """Texts and a teacher's vectors of them ``[n, d]``: no query, no label.

    With a ``queue`` a step also sees the teacher's vectors of so many texts that were met in the steps before, the
    first in the first out (Gao et al. 2021, DistilCSE, arXiv:2112.05638). Which those are follows from ``seed``, the
    schedule's, and the step's place alone: nothing is remembered, and a resumed training finds the same. A text of the
    step itself is no other text, and is left out.
    """

    texts: Sequence[str]
    targets: Rows
    role: Role = "doc"
    queue: int = 0
    seed: int = 0

    @property
    def count(self) -> int:
        return len(self.texts)

    def item(self, row: int, epoch: int) -> tuple[int, int]:
        return row, epoch

    def collate(self, items: Sequence[tuple[int, int]]) -> VectorBatch:
        import torch

        rows = [row for row, _ in items]
        texts = [self.texts[row] for row in rows]
        targets = torch.from_numpy(np.asarray(self.targets[rows], np.float32))
        before = self._before(*items[0], frozenset(texts)) if self.queue else []
        queue = torch.from_numpy(np.asarray(self.targets[before], np.float32)) if before else None
        return VectorBatch(texts, self.role, targets, queue)

    def _before(self, row: int, epoch: int, own: frozenset[str]) -> list[int]:
        """The rows of the queue when ``row`` is met in ``epoch``, the oldest first."""
        place = int(np.flatnonzero(order(self.seed, epoch, self.count) == row)[0])
        end = epoch * self.count + place
        found: list[int] = []
        for at in range(max(0, end - self.queue) // self.count, epoch + 1):
            start, stop = max(0, end - self.queue) - at * self.count, end - at * self.count
            found += order(self.seed, at, self.count)[max(0, start) : max(0, stop)].tolist()
        return [each for each in found if self.texts[each] not in own]


@lru_cache(4)
def order(seed: int, epoch: int, count: int) -> IntArray:
    """The items of an epoch in the order in which they are met."""
    return np.random.default_rng([seed, epoch]).permutation(count)


class Schedule(Sequence[Any]):
    """The items of a whole stage in training order: epoch after epoch, each shuffled by (seed, epoch)."""

    def __init__(self, data: StageData, total: int, seed: int) -> None:
        self.data, self.total, self.seed = data, total, seed

    def __len__(self) -> int:
        return self.total

    def __getitem__(self, at: Any) -> Any:
        epoch, place = divmod(int(at), self.data.count)
        return self.data.item(int(order(self.seed, epoch, self.data.count)[place]), epoch)
