"""Made-up training lists: the teacher likes documents that share words with the query."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rerankdistill.examples.pick import pick
from rerankdistill.students.data import Lists
from rerankdistill.students.train import step_loss
from rerankdistill.types import Example

THINGS = ("bridge", "lighthouse", "harbour", "orchard", "mill", "museum", "library", "garden")
TOWNS = ("arden", "belmont", "corvale", "dunmore", "eastwick")
DOCS = {
    f"d{number}": f"the old {thing} of {town} draws {number % 7 + 2} visitors"
    for number, (thing, town) in enumerate((thing, town) for thing in THINGS for town in TOWNS)
}
QUERIES = [f"where is the {thing} of {town}" for thing in THINGS for town in TOWNS]
NAMES = list(DOCS)


def read(doc_ids: Sequence[str]) -> list[str]:
    return [DOCS[doc_id] for doc_id in doc_ids]


def lesson(number: int, size: int = 8) -> Example:
    """The query of topic ``number`` with its document first and ``size - 1`` others."""
    chance = np.random.default_rng(number)
    others = chance.permutation([at for at in range(len(NAMES)) if at != number])[: size - 1]
    doc_ids = [NAMES[number], *(NAMES[at] for at in others)]
    asked = set(QUERIES[number].split())
    scores = [float(len(asked & set(DOCS[doc_id].split()))) for doc_id in doc_ids]
    labels = [1.0] + [0.0] * (size - 1)
    return Example(
        f"q{number}", QUERIES[number], tuple(doc_ids), np.asarray(scores, np.float32), np.asarray(labels, np.float32), 0
    )


LESSONS = [lesson(number) for number in range(len(NAMES))]


def lists(layout: Any = "batch", size: int = 4, seed: int = 1, examples: Sequence[Example] = LESSONS) -> Lists:
    return Lists(examples, lambda example, epoch: pick(example, size, "random", seed, epoch), read, layout)


def gradients(student, loss, batch, budget):
    """A step's loss, and the gradient of every weight that has one, by name."""
    student.network.zero_grad()
    value = step_loss(student, loss, batch, budget)
    value.backward()
    named = student.network.named_parameters()
    return value.item(), {name: p.grad.clone() for name, p in named if p.grad is not None}
