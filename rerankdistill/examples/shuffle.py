"""The control that shows whether a teacher's scores matter: the same scores, given to the wrong documents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, overload

import numpy as np

from rerankdistill.errors import UsageError
from rerankdistill.examples.pick import generator
from rerankdistill.types import Example, FloatArray


def shuffled(examples: Sequence[Example], seed: int) -> Sequence[Example]:
    """The same examples, each list's teacher scores permuted; a query keeps its permutation in every epoch. Whatever
    else the teacher said of a document goes where its score goes: preferences, and both logits.

    What the true scores had decided goes too: masks are dropped, a positive without a label moves to the document that
    now scores best, and means and deviations are dropped, since the true scores of a batch's other documents would
    tell what the list hides (see :func:`shuffled_matrix`). Labels and labelled positives stay.
    """
    return Shuffled(examples, seed)


def shuffled_matrix(scores: FloatArray, query_ids: Sequence[str], seed: int) -> FloatArray:
    """Teacher scores ``[b, m]`` of a whole batch, each row permuted: the control for lists as wide as the batch."""
    out = np.array(scores)
    for row, query_id in enumerate(query_ids):
        out[row] = out[row][generator("shuffle", seed, query_id).permutation(out.shape[1])]
    return out


class Shuffled(Sequence[Example]):
    """See :func:`shuffled`."""

    def __init__(self, examples: Sequence[Example], seed: int) -> None:
        self.examples, self.seed = examples, seed

    def __len__(self) -> int:
        return len(self.examples)

    @overload
    def __getitem__(self, row: int) -> Example: ...
    @overload
    def __getitem__(self, row: slice) -> Sequence[Example]: ...
    def __getitem__(self, row: Any) -> Any:
        if isinstance(row, slice):
            return [self[one] for one in range(*row.indices(len(self)))]
        return shuffle(self.examples[row], self.seed)


def shuffle(example: Example, seed: int) -> Example:
    """One example of :func:`shuffled`."""
    if seed < 0:
        raise UsageError(f"a seed must not be negative, got {seed}")
    order = generator("shuffle", seed, example.query_id).permutation(len(example.doc_ids))
    scores, positive = example.scores[order], example.positive
    if positive >= 0 and example.labels[positive] <= 0 and not np.isnan(scores).all():
        positive = int(np.nanargmax(scores))
    preferences = None if example.preferences is None else example.preferences[np.ix_(order, order)]
    logits = None if example.logits is None else example.logits[order]
    moved = replace(example, scores=scores, positive=positive, preferences=preferences, logits=logits)
    return replace(moved, means=(), stds=(), masked=())
