"""How far a member of an ensemble can be trusted on one query: by how it ranks what is labelled there.

Such weights are a teacher's per query, "proportional to its agreement with labels", as in multi-teacher distillation.
Only training labels are ever looked at.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rerankdistill.errors import RerankDistillWarning
from rerankdistill.examples.rescale import Values

Weights = NDArray[np.float64]


def ndcg(scores: Any, labels: Any) -> float:
    """nDCG over a complete list ``[n]`` with gain 2^label - 1; NaN where no document is labelled above zero.

    Unlabelled documents gain nothing, documents without a score come last, and documents of one score share the mean
    of their places' discounts, so that a constant member gets what chance would get. By hand: scores (2, 3) and labels
    (1, 0) put the relevant document second: 1 / log2(3) = 0.631.
    """
    values, gains = np.asarray(scores, np.float64), 2.0 ** np.asarray(labels, np.float64) - 1
    if not len(gains) or gains.max() <= 0:
        return float("nan")
    discounts = 1 / np.log2(2.0 + np.arange(len(gains)))
    values = np.where(np.isnan(values), -np.inf, values)
    order = np.argsort(-values, kind="stable")
    _, groups = np.unique(-values[order], return_inverse=True)
    shared = np.bincount(groups, discounts) / np.bincount(groups)
    return float((gains[order] * shared[groups]).sum() / (np.sort(gains)[::-1] * discounts).sum())


def agreement_weights(members: Sequence[Sequence[Any]], labels: Sequence[Any]) -> tuple[Weights, int]:
    """``[queries, members]`` shares that sum to 1 a query, and for how many queries labels decided them.

    Args:
        members: for each member, each query's ``[n]`` scores.
        labels: each query's ``[n]`` grades; all zero where there are none, or where they must not be looked at.

    A query's shares are proportional to the members' :func:`ndcg` on it. A query without a label gets the mean of the
    others' shares; equal ones, with a warning, where no query has any.
    """
    quality: Values = np.array([[ndcg(m[at], grades) for m in members] for at, grades in enumerate(labels)])
    quality = quality.reshape(len(labels), len(members))
    known = ~np.isnan(quality).any(1) & (quality.sum(1) > 0)
    shares = np.full(quality.shape, 1 / max(len(members), 1))
    if not known.any():
        what = "no query has a labelled candidate: the ensemble's members are not weighted by agreement with labels"
        warnings.warn(what, RerankDistillWarning, stacklevel=2)
        return shares, 0
    shares[known] = quality[known] / quality[known].sum(1, keepdims=True)
    shares[~known] = shares[known].mean(0)
    return shares, int(known.sum())
