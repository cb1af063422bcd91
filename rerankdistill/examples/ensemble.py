"""Several teachers become one: the weighted mean of their scores, standardised over the complete list or raw; or of
their reciprocal ranks, which needs no more than an order of each."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rerankdistill.errors import CardError, DataError, RerankDistillWarning, ScaleError
from rerankdistill.examples.rescale import Values, place, ranks, standardise
from rerankdistill.types import FloatArray, Scale

Combine = Literal["zscore", "raw", "rrf"]
Missing = Literal["mean", "drop"]
"""A document that a member did not score: the mean of the members that did (with ``rrf``: nothing from that member, as
if it stood infinitely far down), or no score at all."""
RRF = 60
"""The constant of reciprocal rank fusion (Cormack, Clarke, Büttcher, SIGIR 2009)."""


@dataclass(frozen=True, slots=True, eq=False)
class Fused:
    """One list, fused.

    Attributes:
        scores: ``[n]`` float32, NaN where there is none.
        means, stds: one per member: with ``zscore`` what its complete list was standardised with, NaN where it scored
            nothing of it; else 0 and 1. :func:`apply` puts other documents on the same scale with them.
        partial: how many documents some members scored and others did not.
    """

    scores: FloatArray
    means: tuple[float, ...]
    stds: tuple[float, ...]
    partial: int


def fused_scale(scales: Sequence[Scale], combine: Combine) -> Scale:
    """The scale of fused scores: of ``rrf`` it is ``rank``, for the sums of reciprocal ranks say an order and no more.

    Raises:
        ScaleError: raw scores of different scales are to be mixed, or ranks are to be standardised.
    """
    names = ", ".join(scale.value for scale in scales)
    if combine == "raw":
        if len(set(scales)) != 1:
            what = f"raw scores of different scales cannot be mixed ({names})"
            raise ScaleError(what, where="ensemble", fix="set combine = 'zscore' or 'rrf'")
        if scales[0] is Scale.RANK and len(scales) > 1:
            fix = "set combine = 'rrf', or rank_to_score = 'reciprocal' (or 'depth')"
            raise ScaleError("the members only give orders, which have no mean", where="ensemble", fix=fix)
        return scales[0]
    if combine == "rrf":
        return Scale.RANK
    if Scale.RANK in scales:
        fix = "set combine = 'rrf', or rank_to_score = 'reciprocal' (or 'depth'), or take it alone with combine = 'raw'"
        raise ScaleError(f"a member only gives ranks, which have no spread to divide by ({names})", fix=fix)
    return Scale.ZSCORE


def fuse(
    members: Sequence[Any],
    combine: Combine = "zscore",
    weights: Sequence[float] | None = None,
    scales: Sequence[Scale] | None = None,
    missing: Missing = "mean",
) -> Fused:
    """Fuse the members' scores of one complete list.

    Args:
        members: each ``[n]`` raw scores, NaN where the member gave none.
        combine: ``zscore`` standardises each member over the list first; ``raw`` takes the scores as they are;
            ``rrf`` takes 1 / (60 + rank), ties sharing their average rank.
        weights: one per member, above 0; they are normalised to sum 1. Equal by default.
        scales: the members' scales; several members are only mixed ``raw`` when these are given and equal.
        missing: see :data:`Missing`; ``raw`` always drops, since a raw mean over other members is on another level.

    Raises:
        DataError: no member, lists of different length, or an infinite score.
        CardError: weights that do not fit.
        ScaleError: see :func:`fused_scale`.
    """
    fused = fuse_quietly(members, combine, weights, scales, missing)
    if fused.partial:
        warnings.warn(partial_note(fused.partial, combine, missing), RerankDistillWarning, stacklevel=2)
    return fused


def fuse_quietly(
    members: Sequence[Any],
    combine: Combine = "zscore",
    weights: Sequence[float] | None = None,
    scales: Sequence[Scale] | None = None,
    missing: Missing = "mean",
) -> Fused:
    """:func:`fuse` without its warning, for callers that add up ``partial`` over many lists."""
    lists = [np.asarray(member, np.float64) for member in members]
    if not lists or any(member.ndim != 1 or len(member) != len(lists[0]) for member in lists):
        shapes = ", ".join(str(member.shape) for member in lists) or "none"
        raise DataError(f"the members of an ensemble must score the same list, got shapes {shapes}", where="ensemble")
    if scales is not None:
        fused_scale(scales, combine)
    elif combine == "raw" and len(lists) > 1:
        fix = "name each member's scale, or set combine = 'zscore'"
        raise ScaleError("raw scores are only mixed when their scales are known to be equal", fix=fix)
    known = (~np.isnan(np.stack(lists))).sum(0)
    partial = int(((known > 0) & (known < len(lists))).sum())
    if combine == "rrf":
        share = _shares(weights, len(lists))[:, None]
        return Fused(_reciprocal(lists, share, missing), (0.0,) * len(lists), (1.0,) * len(lists), partial)
    levels = [standardise(member) for member in lists]
    if combine == "raw":
        means, stds = (0.0,) * len(lists), (1.0,) * len(lists)
    else:
        means, stds = tuple(level.mean for level in levels), tuple(level.std for level in levels)
    scores = apply([member[None] for member in lists], [means], [stds], weights, combine, missing)[0]
    return Fused(scores, means, stds, partial)


def _reciprocal(lists: Sequence[Values], share: Values, missing: Missing) -> FloatArray:
    """``[n]`` weighted means of 1 / (60 + rank)."""
    parts = np.stack([1 / (RRF + ranks(member)) for member in lists])
    present = ~np.isnan(parts)
    total = (np.where(present, parts, 0.0) * share).sum(0)
    enough = present.any(0) if missing == "mean" else present.all(0)
    return np.where(enough, total, np.nan).astype(np.float32)


def apply(
    members: Sequence[Any],
    means: Any,
    stds: Any,
    weights: Sequence[float] | None = None,
    combine: Combine = "zscore",
    missing: Missing = "mean",
) -> FloatArray:
    """Put other documents' raw scores on the scale that each query's complete list was fused with.

    Args:
        members: each ``[b, m]`` raw scores, NaN where there is none.
        means, stds: ``[b, members]``, from :class:`Fused`.

    Returns:
        ``[b, m]`` float32, equal to the fused scores for the documents of the list itself.

    Raises:
        DataError: statistics that do not fit, or ``rrf``: a rank is a place in one list, and other documents have none.
    """
    if combine == "rrf":
        fix = "train on lists instead of whole batches, or set combine = 'zscore'"
        raise DataError("ranks of a list cannot be given to documents outside it", where="ensemble", fix=fix)
    means, stds = np.asarray(means, np.float64), np.asarray(stds, np.float64)
    stacked = np.stack([np.asarray(member, np.float64) for member in members])
    if means.shape != (stacked.shape[1], len(members)) or stds.shape != means.shape:
        what = f"means {means.shape} and stds {stds.shape} do not fit {len(members)} members of {stacked.shape[1]} rows"
        raise DataError(what, where="ensemble", fix="build the examples again with this teacher")
    share = _shares(weights, len(members))[:, None, None]
    placed = np.stack([place(part, means[:, [k]], stds[:, [k]]) for k, part in enumerate(stacked)])
    return _mean(placed, share, keep_partial=combine == "zscore" and missing == "mean").astype(np.float32)


def partial_note(count: int, combine: Combine, missing: Missing) -> str:
    """What became of documents that only some members scored, as a sentence."""
    fate = "count as not scored"
    if combine != "raw" and missing == "mean":
        fate = "got the mean of those that did" if combine == "zscore" else "got nothing from those that did not"
    return f"{count} documents were scored by some members of the ensemble and not by others; they {fate}"


def _shares(weights: Sequence[float] | None, count: int) -> Values:
    shares = np.ones(count) if weights is None else np.asarray(weights, np.float64)
    if shares.shape != (count,) or not np.all(np.isfinite(shares) & (shares > 0)):
        what = f"weights must be {count} numbers above 0, got {list(weights or [])}"
        raise CardError(what, where="ensemble", fix="give one weight per member, or none for equal ones")
    normalised: Values = shares / shares.sum()
    return normalised


def _mean(placed: Values, share: Values, keep_partial: bool) -> Values:
    """Weighted mean over the first axis; of those present, or NaN where one is missing."""
    present: NDArray[np.bool_] = ~np.isnan(placed)
    total = np.where(present, placed, 0.0) * share
    weight = (present * share).sum(0)
    enough = present.any(0) if keep_partial else present.all(0)
    return np.where(enough, total.sum(0) / np.where(weight > 0, weight, 1.0), np.nan)
