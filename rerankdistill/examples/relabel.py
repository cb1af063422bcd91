"""A positive that is only presumed gives way to the teacher's first document.

A query made from a document, or a title, often has a better answer elsewhere: Lee et al. 2024 (Gecko / FRet),
arXiv:2403.20327, retrieve candidates for it, let the language model rank them, and take its first as the positive. The
document that the query came from is then a negative like any other, unless it scores so high that it is masked.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from rerankdistill.types import FloatArray

PRESUMED, REPLACED, RATE = "presumed", "relabelled", "relabel_rate"


def relabelled(scores: FloatArray, labels: FloatArray) -> FloatArray | None:
    """``[n]`` labels whose highest grade went to the document with the highest score, and nothing to the others.

    None where there is nothing to move: no label above zero, no score, or a first document that has a label already.
    Ties go to the document that comes first; one with a label wins them.
    """
    if not len(labels) or labels.max() <= 0 or np.isnan(scores).all():
        return None
    best = np.flatnonzero(scores == np.nanmax(scores))
    if (labels[best] > 0).any():
        return None
    moved = np.zeros_like(labels)
    moved[best[0]] = labels.max()
    return moved


def relabelling(counted: Mapping[str, float]) -> str:
    """In words, what happened to the positives that might have been replaced."""
    presumed, replaced = int(counted.get(PRESUMED, 0)), int(counted.get(REPLACED, 0))
    share = f" ({replaced / presumed:.0%})" if presumed else ""
    return f"the teacher's first document took the place of {replaced:,} of {presumed:,} positives{share}"
