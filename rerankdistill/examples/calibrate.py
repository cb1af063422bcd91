"""From what a teacher says to numbers that a loss is meant for. Pure functions of scores; NaN (not scored) stays NaN.

``raw`` leaves scores as they are. ``zscore`` is :func:`~rerankdistill.examples.rescale.standardise`, over each query's
complete list. ``percentile`` moves two percentiles of all scores of the data set to 0 and 1. ``two_logit`` makes of
log P(yes) the logit of *yes* when both logits are centred on zero. ``temperature`` divides by the one number that makes
the labels likeliest.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rerankdistill.errors import DataError, RerankDistillWarning, ScaleError
from rerankdistill.examples.rescale import Values, place, standardise
from rerankdistill.types import Scale

Calibrate = Literal["raw", "zscore", "percentile", "two_logit", "temperature"]
STEPS = 200
"""At most so many steps to a root; bisection alone needs about 50."""


class Moved(NamedTuple):
    """What a list was moved by: (score - shift) / divisor, then cut to 0..1 where ``cut``."""

    shift: float = 0.0
    divisor: float = 1.0
    cut: bool = False

    def __call__(self, scores: Any) -> Values:
        values = place(scores, self.shift, self.divisor)
        return np.clip(values, 0.0, 1.0) if self.cut else values


def calibrated_scale(scale: Scale, how: Calibrate) -> Scale:
    """The scale of calibrated scores.

    Raises:
        ScaleError: an order has no distances to calibrate, or ``two_logit`` of something else than log P(yes).
    """
    if how == "raw":
        return scale
    if scale is Scale.RANK:
        fix = "make numbers of it first: rank_to_score = 'reciprocal' (or 'depth') in the teacher's card"
        raise ScaleError(f"calibrate = {how!r} needs numbers, and this teacher only gives an order", fix=fix)
    if how == "two_logit" and scale is not Scale.LOGPROB:
        what = f"calibrate = 'two_logit' reads log P(yes) of a yes/no question (scale 'logprob'), not {scale.value!r}"
        raise ScaleError(what, where="calibrate", fix="use 'zscore', 'percentile' or 'temperature' for this teacher")
    made = {"zscore": Scale.ZSCORE, "percentile": Scale.GRADE, "two_logit": Scale.LOGIT}
    return made.get(how, scale)


def percentile_bounds(lists: Iterable[Any], low: float = 1.0, high: float = 99.0) -> tuple[float, float]:
    """The percentiles ``low`` and ``high`` (linear between neighbours) of all scores of a data set.

    With :class:`Moved` and ``cut``: the min-max scaling by the 1st and 99th percentile of a RankT5 teacher's scores in
    Tamber, Kazi, Sourabh, Lin 2025, arXiv:2502.19712. By hand: of 0, 1, …, 100 they are 1 and 99, and 50 becomes 0.5.

    Raises:
        DataError: there is no score, or the two percentiles are the same number.
    """
    values = np.concatenate([np.asarray(each, np.float64).ravel() for each in lists] or [np.empty(0)])
    values = values[np.isfinite(values)]
    if not values.size:
        raise DataError("there is no score to take percentiles of", where="calibrate", fix="score the candidates first")
    bottom, top = (float(value) for value in np.percentile(values, [low, high]))
    if top <= bottom:
        what = f"percentiles {low:g} and {high:g} of the teacher's scores are both {bottom:g}"
        raise DataError(what, where="calibrate", fix="take percentiles further apart, or calibrate = 'zscore'")
    return bottom, top


def zero_centred(logits: Any) -> Values:
    """Both logits ``[n, 2]`` of a yes/no question, moved so that they sum to zero: what matters of them is their
    difference alone, and a student need not learn the teacher's level.

    Laitz, Papakostas, Lotufo, Nogueira 2024 (InRanker), arXiv:2401.06910. By hand: (3, 1) becomes (1, -1).
    """
    values: Values = np.asarray(logits, np.float64)
    if values.ndim != 2 or values.shape[1] != 2:
        raise DataError(f"two logits a document are needed, got the shape {values.shape}", where="calibrate")
    centred: Values = values - values.mean(1, keepdims=True)
    return centred


def centred_logit(log_probability: Any) -> Values:
    """The logit of *yes* of :func:`zero_centred` ``[n]``, from log P(yes) alone: half of its log-odds.

    By hand: P = 3/4 is log-odds log 3, hence log(3) / 2. A probability of 1 or 0 has none and gives NaN.

    Raises:
        DataError: a log-probability above zero.
    """
    values = np.asarray(log_probability, np.float64)
    if np.any(values > 0):
        what = f"log-probability {float(np.nanmax(values)):g} is above zero"
        raise DataError(what, where="calibrate", fix="check the scale of the teacher's card")
    with np.errstate(divide="ignore", invalid="ignore"):
        odds = values - np.log(-np.expm1(values))
    return np.where(np.isfinite(odds), odds / 2, np.nan)


def fit_temperature(lists: Sequence[Any], labels: Sequence[Any]) -> float:
    """The temperature at which the teacher's softmax makes the labelled documents likeliest.

    Minimises over beta = 1 / tau the mean over lists of log sum_j exp(beta s_j) - beta s_y, where s_y is the score of
    the document with the highest label (the mean over several). That is convex in beta; the root of its derivative,
    E_beta[s] - s_y, is bracketed and then found by Newton's steps that never leave the bracket. Platt scaling's one
    parameter as in Guo, Pleiss, Sun, Weinberger 2017, arXiv:1706.04599, over lists instead of classes.

    By hand: three lists (1, 0) labelled first, and one labelled second, want P(first) = 3/4: beta = log 3.

    Args:
        lists: each ``[n]`` scores, NaN where there is none.
        labels: each ``[n]`` grades; 0 where nobody judged. A list without a label above 0 that is scored, or with fewer
            than two scores, tells nothing and is left out.

    Returns:
        The temperature; 1, with a warning, where the labelled document is first in every list.

    Raises:
        DataError: no list tells anything, or the labels are no likelier than chance at any temperature.
    """
    told = _told(lists, labels)
    if not len(told.labelled):
        what = "no list has a labelled document and another one, both scored: there is nothing to fit a temperature on"
        raise DataError(what, where="calibrate = 'temperature'", fix="use calibrate = 'zscore', or bring judgements")
    unit = float(-told.below.min(1).mean())
    if unit == 0 or _slope(told, 0.0)[0] >= 0:
        what = "the labelled documents do not score above the mean of their lists: no temperature makes them likely"
        fix = "look at the teacher: rerankdistill teachers measure"
        raise DataError(what, where="calibrate = 'temperature'", fix=fix)
    if (told.labelled >= 0).all():
        what = "the labelled document is first in every list: the labels put no bound on the temperature"
        warnings.warn(f"{what}, and 1 is taken", RerankDistillWarning, stacklevel=2)
        return 1.0
    low, high = 0.0, 1.0 / unit
    while _slope(told, high)[0] < 0:
        low, high = high, 2 * high
    return 1 / _root(told, low, high)


class _Told(NamedTuple):
    """Lists that tell something, all scores counted from the highest of their list: ``below [lists, n]``, zero where
    there is none; ``there`` says where there is one; ``labelled [lists]`` is the labelled document's."""

    below: Values
    there: NDArray[np.bool_]
    labelled: Values


def _told(lists: Sequence[Any], labels: Sequence[Any]) -> _Told:
    width = max((len(each) for each in lists), default=0)
    below, there = np.zeros((len(lists), width)), np.zeros((len(lists), width), bool)
    labelled = np.full(len(lists), np.nan)
    for at, (scores, grades) in enumerate(zip(lists, labels, strict=True)):
        values, marks = np.asarray(scores, np.float64), np.asarray(grades, np.float64)
        known = np.isfinite(values)
        if known.sum() < 2 or not (marks[known] > 0).any():
            continue
        there[at, : len(values)] = known
        below[at, : len(values)][known] = values[known] - values[known].max()
        best = known & (marks == marks[known].max())
        labelled[at] = below[at, : len(values)][best].mean()
    rows = ~np.isnan(labelled)
    return _Told(below[rows], there[rows], labelled[rows])


def _slope(told: _Told, beta: float) -> tuple[float, float]:
    """First and second derivative at beta, summed over lists."""
    weights = np.where(told.there, np.exp(beta * told.below), 0.0)
    weights /= weights.sum(1, keepdims=True)
    mean = (weights * told.below).sum(1)
    spread = (weights * (told.below - mean[:, None]) ** 2).sum()
    return float((mean - told.labelled).sum()), float(spread)


def _root(told: _Told, low: float, high: float) -> float:
    beta = (low + high) / 2
    for _ in range(STEPS):
        first, second = _slope(told, beta)
        low, high = (beta, high) if first < 0 else (low, beta)
        step = beta - first / second if second > 0 else low
        after = step if low < step < high else (low + high) / 2
        if abs(after - beta) <= 1e-12 * abs(after):
            return after
        beta = after
    return beta


def moves(
    lists: Sequence[Any], labels: Sequence[Any], how: Calibrate, percentiles: tuple[float, float]
) -> tuple[list[Moved], dict[str, float]]:
    """What each list is moved by, and the numbers that were fitted.

    Args:
        labels: each ``[n]`` grades; all zero for a list whose labels must not be looked at.
    """
    if how == "zscore":
        levels = [standardise(each) for each in lists]
        return [Moved(level.mean, level.std) for level in levels], {}
    if how == "percentile":
        bottom, top = percentile_bounds(lists, *percentiles)
        return [Moved(bottom, top - bottom, cut=True)] * len(lists), {"percentile_low": bottom, "percentile_high": top}
    if how == "temperature":
        tau = fit_temperature(lists, labels)
        return [Moved(0.0, tau)] * len(lists), {"temperature": tau}
    return [Moved()] * len(lists), {}
