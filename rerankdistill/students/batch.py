"""From examples to the tensors of one training step.

Each distinct document of a batch is encoded once. For a student that compares vectors the columns are all documents of
the batch (in-batch negatives are only a wider matrix); for one that reads pairs they are the query's own list.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from rerankdistill.contracts import Layers, Logits, Preferences, Reading, Role, Scores
from rerankdistill.students.layer_scores import LayerLessons, drawn
from rerankdistill.types import Example, FloatArray, IntArray

if TYPE_CHECKING:
    from torch import Tensor

Texts = Callable[[Sequence[str]], list[str]]
"""doc_ids to what the student reads of them."""

LiveScores = Callable[[Sequence[Example], Sequence[str]], FloatArray]
"""``(examples, doc_ids) -> [b, m]`` teacher scores on the scale of ``Example.scores``."""

FALSE_NEGATIVE = 0.95
"""A document that the teacher puts above this share of the positive's height over the list's lowest score is taken for
an unlabelled positive and is no negative (NV-Retriever's positive-aware mining)."""


class Budget(NamedTuple):
    """What one training step may hold, in padded tokens; it decides memory and speed, and no result.

    Attributes:
        tokens: go through the network at once.
        kept: have their activations kept for the backward pass. What is read in one go and is more is encoded twice:
            only its output is kept, and each chunk is encoded again when its gradient is due, so that memory does not
            grow with the lists (Gao et al. 2021, arXiv:2101.06983).
    """

    tokens: int
    kept: int


@dataclass(slots=True)
class ListBatch:
    """One step on ranked lists: ``b`` queries, ``len(docs)`` distinct documents (texts, and their ids), ``m`` columns.

    ``columns [b, m]`` says which document a cell is about. The other tensors are those of
    :class:`rerankdistill.contracts.Scores`; of ``layers [l, b, m]`` and ``logits [b, m, 2]`` the teacher's half.
    """

    queries: list[str]
    docs: list[str]
    doc_ids: list[str]
    columns: Tensor
    teacher: Tensor
    scored: Tensor
    valid: Tensor
    own: Tensor
    label: Tensor
    masked: Tensor
    positive: Tensor
    preferences: Preferences | None = None
    layers: Tensor | None = None
    logits: Tensor | None = None
    draw: tuple[int, int] = (1, 0)
    """How many layers of student and teacher are held against each other, and a number for chance to draw them by."""

    def __len__(self) -> int:
        return len(self.queries)

    def scores(self, reading: Reading) -> Scores:
        """The record that losses read, around what the student made of the batch."""
        place, theirs = reading.scores.device, self.preferences
        names = ("teacher", "valid", "scored", "own", "label", "positive", "masked")
        found = Scores(reading.scores, **{name: getattr(self, name).to(place) for name in names}, docs=reading.docs)
        if theirs is not None:
            parts = (theirs.row, theirs.first, theirs.second, theirs.probability)
            found.preferences = Preferences(*(part.to(place) for part in parts))
        if reading.layers is not None and self.layers is not None:
            found.layers = Layers(*drawn(reading.layers, self.layers.to(place), *self.draw))
        if reading.logits is not None and self.logits is not None:
            found.logits = Logits(reading.logits, self.logits.to(place))
        return found


@dataclass(slots=True)
class VectorBatch:
    """One step on representations: texts and the teacher's vectors of them, ``targets [t, d]``; ``queue [k, d]``, where
    there is one, its vectors of texts met before."""

    texts: list[str]
    role: Role
    targets: Tensor
    queue: Tensor | None = None

    def __len__(self) -> int:
        return len(self.texts)


def list_batch(
    examples: Sequence[Example],
    texts: Texts,
    layout: Literal["batch", "lists"],
    live: LiveScores | None = None,
    inside: LayerLessons | None = None,
    hide_positive: bool = False,
) -> ListBatch:
    """Lay out examples for a student.

    Args:
        examples: lists already cut to what the step can afford.
        texts: what the student reads of a document.
        layout: ``batch``: columns are all distinct documents of the batch; ``lists``: a query's own.
        live: a teacher that can score every query against every document of the batch; without one only a query's own
            documents are scored.
        inside: a teacher whose layers are followed.
        hide_positive: the teacher's score of a query's positive is as if it had given none.
    """
    import torch

    numbers: dict[str, int] = {}
    for example in examples:
        for doc_id in example.doc_ids:
            numbers.setdefault(doc_id, len(numbers))
    width = len(numbers) if layout == "batch" else max(len(example.doc_ids) for example in examples)
    shape = (len(examples), width)
    columns = np.tile(np.arange(width), (len(examples), 1)) if layout == "batch" else np.zeros(shape, np.int64)
    teacher, label = np.full(shape, np.nan, np.float32), np.zeros(shape, np.float32)
    own, masked = np.zeros(shape, bool), np.zeros(shape, bool)
    positive, places = np.full(len(examples), -1, np.int64), list[IntArray]()
    for row, example in enumerate(examples):
        documents = np.asarray([numbers[doc_id] for doc_id in example.doc_ids])
        at = documents if layout == "batch" else np.arange(len(documents))
        places.append(at)
        columns[row, at] = documents
        teacher[row, at], label[row, at], own[row, at] = example.scores, example.labels, True
        masked[row, at] = example.masked or False
        if example.positive >= 0:
            positive[row] = at[example.positive]
    if live is not None and layout == "batch":
        teacher = np.where(own, teacher, live(examples, list(numbers)))
    for row in np.flatnonzero(positive >= 0).tolist():
        masked[row] |= false_negatives(teacher[row], own[row], int(positive[row]))
        if hide_positive:
            teacher[row, positive[row]] = np.nan
    valid = np.ones(shape, bool) if layout == "batch" else own
    cells = {"columns": columns, "teacher": np.nan_to_num(teacher), "scored": np.isfinite(teacher) & valid,
             "valid": valid, "own": own, "label": label, "masked": masked, "positive": positive}  # fmt: skip
    tensors: dict[str, Any] = {name: torch.from_numpy(array) for name, array in cells.items()}
    tensors |= {"preferences": preferences(examples, places), "logits": two_logits(examples, places, shape)}
    batch = ListBatch([e.query for e in examples], texts(list(numbers)), list(numbers), **tensors)
    if inside is not None:
        query_ids = [example.query_id for example in examples]
        layers = np.take_along_axis(inside.read(query_ids, batch.queries, batch.docs), columns[None], 2)
        batch.layers, batch.draw = torch.from_numpy(layers), inside.draw(query_ids)
    return batch


def preferences(examples: Sequence[Example], places: Sequence[IntArray]) -> Preferences | None:
    """The comparisons within each list, each two documents once, where any list has some.

    Args:
        places: for each example the column of each of its documents.

    Where both orders were asked, the probability is p = (P(i beats j) + 1 - P(j beats i)) / 2: what a comparer owes to
    the order of its question cancels (Huang and Chen 2024, PairDistill, arXiv:2410.01383).
    """
    import torch

    rows, firsts, seconds, shares = ([np.empty(0, kind)] for kind in (np.int64, np.int64, np.int64, np.float32))
    for row, (example, at) in enumerate(zip(examples, places, strict=True)):
        if example.preferences is None:
            continue
        won = example.preferences
        both = np.stack([won, 1 - won.T])
        known = ~np.isnan(both)
        total = np.where(known, both, 0).sum(0) / np.maximum(known.sum(0), 1)
        i, j = np.nonzero(np.triu(known.any(0), 1))
        rows.append(np.full(len(i), row))
        firsts.append(at[i])
        seconds.append(at[j])
        shares.append(total[i, j].astype(np.float32))
    if len(rows) == 1:
        return None
    return Preferences(*(torch.from_numpy(np.concatenate(part)) for part in (rows, firsts, seconds, shares)))


def two_logits(examples: Sequence[Example], places: Sequence[IntArray], shape: tuple[int, int]) -> Tensor | None:
    """``[b, m, 2]`` both logits of each query's own documents, NaN elsewhere; None where no example has any."""
    import torch

    if all(example.logits is None for example in examples):
        return None
    found = np.full((*shape, 2), np.nan, np.float32)
    for row, (example, at) in enumerate(zip(examples, places, strict=True)):
        if example.logits is not None:
            found[row, at] = example.logits
    return torch.from_numpy(found)


def false_negatives(teacher: FloatArray, own: np.ndarray, positive: int) -> np.ndarray:
    """``[m]`` bool: documents of other lists too good, in the teacher's eyes, to be this query's negatives. Those of
    its own list were marked over the complete list, when the example was built."""
    known = teacher[own & np.isfinite(teacher)]
    if not known.size or not np.isfinite(teacher[positive]):
        return np.zeros(len(teacher), bool)
    floor = known.min()
    with np.errstate(invalid="ignore"):
        too_good = np.asarray(teacher - floor > FALSE_NEGATIVE * (teacher[positive] - floor))
    return np.asarray(too_good & ~own)
