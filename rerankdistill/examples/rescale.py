"""Scales of teacher scores: put a list on a common one, and refuse a loss that cannot eat what the teacher says.

Everything here looks at a *complete* list, before documents are picked from it, so that re-mining never mixes scales.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterable
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rerankdistill.errors import DataError, RerankDistillWarning, ScaleError
from rerankdistill.types import Scale

ONE_HOT = 0.99
"""A teacher whose mean largest probability is above this says no more than a label."""

Values = NDArray[np.float64]


class Standardised(NamedTuple):
    z: Values
    mean: float
    std: float


def standardise(scores: Any) -> Standardised:
    """z-scores of one complete list ``[n]`` with its mean and population standard deviation.

    NaN (not scored) is ignored and stays NaN. A constant list becomes zeros and its deviation 0; a list without any
    score has mean and deviation NaN. Differences below float32's resolution count as none.

    Raises:
        DataError: a score is infinite.
    """
    values = _finite_or_nan(scores)
    known = values[~np.isnan(values)]
    if not known.size:
        return Standardised(values, float("nan"), float("nan"))
    mean, std = float(known.mean()), float(known.std())
    if std <= np.finfo(np.float32).eps * float(np.abs(known).max()):
        return Standardised(place(values, mean, 0.0), mean, 0.0)
    return Standardised(place(values, mean, std), mean, std)


def place(scores: Any, mean: Any, std: Any) -> Values:
    """Scores on the scale of a list that had this mean and deviation (0: zeros); arrays broadcast. NaN stays NaN."""
    values, deviation = np.asarray(scores, np.float64), np.asarray(std, np.float64)
    flat = deviation == 0
    moved = np.where(flat, 0.0, values - np.asarray(mean, np.float64)) / np.where(flat, 1.0, deviation)
    return np.where(np.isnan(values), np.nan, moved)


def minmax(scores: Any) -> Values:
    """One complete list ``[n]`` moved to 0..1; a constant list becomes zeros, NaN stays NaN.

    Raises:
        DataError: a score is infinite.
    """
    values = _finite_or_nan(scores)
    known = values[~np.isnan(values)]
    if not known.size:
        return values
    return place(values, known.min(), known.max() - known.min())


def rank_to_score(scores: Any, how: Literal["reciprocal", "depth"]) -> Values:
    """Turn a teacher that only orders (higher is better) into numbers, when the user asks for it by name.

    ``reciprocal``: 1 / rank; ``depth``: n - rank + 1. Ties share their average rank; NaN stays NaN.
    """
    places = ranks(scores)
    return 1 / places if how == "reciprocal" else (~np.isnan(places)).sum() - places + 1


def ranks(scores: Any) -> Values:
    """Places ``[n]`` in a list, 1 for the highest score; ties share their average, NaN stays NaN.

    Raises:
        DataError: a score is infinite.
    """
    values = _finite_or_nan(scores)
    known = ~np.isnan(values)
    mine, others = values[known][:, None], values[known][None, :]
    out = np.full(len(values), np.nan)
    out[known] = (others > mine).sum(1) + ((others == mine).sum(1) + 1) / 2
    return out


def check_scale(eats: Collection[Scale], scale: Scale, loss: str = "this loss") -> None:
    """Refuse a teacher whose scores a loss cannot eat. A loss that eats nothing reads no teacher and takes any.

    Raises:
        ScaleError: says why, and the way out.
    """
    if not eats or scale in eats:
        return
    if scale is Scale.RANK:
        what = f"{loss} learns from differences between teacher scores, and this teacher only gives ranks"
        orders = "a loss that needs no more than an order (ranknet, list_mle, lambda_loss, adr_mse)"
        fix = f"use {orders}, or set rank_to_score = 'reciprocal' (or 'depth')"
    else:
        what = f"{loss} cannot learn from teacher scores of scale {scale.value!r}"
        fix = f"it eats {', '.join(sorted(kind.value for kind in eats))}; choose another loss or teacher"
    raise ScaleError(what, where=f"scale {scale.value!r}", fix=fix)


def sharpness(lists: Iterable[Any], tau: float = 1.0) -> dict[str, float]:
    """How much a teacher says at a temperature, over lists of scores.

    Returns:
        ``mean_max_probability`` and ``entropy`` (mean, nats) of softmax(scores / tau), ``constant`` (the share of lists
        whose scores are all equal) and ``lists`` (how many held two scores or more; the others are skipped). Warns
        when the teacher is nearly one-hot, and when lists are constant.
    """
    highest, entropies, constant = [], [], 0
    for scores in lists:
        values = np.asarray(scores, np.float64)
        values = values[np.isfinite(values)]
        if values.size < 2:
            continue
        logits = (values - values.max()) / tau
        logs = logits - np.log(np.exp(logits).sum())
        highest.append(float(np.exp(logs.max())))
        entropies.append(float(-(np.exp(logs) * logs).sum()))
        constant += int(values.min() == values.max())
    if not highest:
        return {"mean_max_probability": float("nan"), "entropy": float("nan"), "constant": float("nan"), "lists": 0}
    mean, count = float(np.mean(highest)), len(highest)
    if mean > ONE_HOT:
        what = (
            f"the teacher's distribution is nearly one-hot at temperature {tau:g} (mean largest probability {mean:.3f})"
        )
        warnings.warn(f"{what}: raise tau_teacher", RerankDistillWarning, stacklevel=2)
    if constant:
        what = f"the teacher gives every document of a list the same score in {constant} of {count} lists"
        warnings.warn(f"{what}: they teach nothing", RerankDistillWarning, stacklevel=2)
    return {
        "mean_max_probability": mean,
        "entropy": float(np.mean(entropies)),
        "constant": constant / count,
        "lists": count,
    }


def _finite_or_nan(scores: Any) -> Values:
    values = np.asarray(scores, np.float64)
    if np.isinf(values).any():
        raise DataError(f"teacher score {int(np.isinf(values).argmax())} of a list is infinite", fix="score it again")
    return values
