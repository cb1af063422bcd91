"""What a pipeline promises of its report, checked after every evaluation.

Three forms: ``small > small before`` (above it, with p < .05 in the report's own comparison), ``small >= small
control`` (not below it with p < .05), and ``bm25 >= 0.67`` (the first measure reaches a number).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from rerankdistill.errors import CardError, ExpectationNotMet

FORM = re.compile(r"\s*(?P<row>[^<>]+?)\s*(?P<how>>=|>)\s*(?P<other>[^<>]+?)\s*")
LEVEL = 0.05


def read(text: str) -> tuple[str, str, str]:
    """``(row, '>' or '>=', other row or number)``. Raises ValueError for anything else."""
    found = FORM.fullmatch(text)
    if found is None:
        raise ValueError(f"cannot read {text!r}; write 'row > other row', 'row >= other row' or 'row >= 0.5'")
    return found["row"], found["how"], found["other"]


def check(report: dict[str, Any], expected: Sequence[str], where: str) -> None:
    """Hold a report (as JSON) against what is expected of it.

    Raises:
        ExpectationNotMet: names every promise that is not kept, with the figures.
        CardError: a promise about a row that the report has not.
    """
    broken = [line for text in expected if (line := _broken(report, text, where))]
    if broken:
        what = "not met: " + "; ".join(broken)
        raise ExpectationNotMet(what, where=where, fix="the report is written; look at it, or change 'expect'")


def _broken(report: dict[str, Any], text: str, where: str) -> str | None:
    row, how, other = read(text)
    rows = {each["name"]: each["measures"] for each in report["rows"]}
    for name in (row, other):
        if name not in rows and not (name == other and _number(other) is not None):
            raise CardError(f"expect: the report has no row {name!r}", where=where, fix=f"rows: {', '.join(rows)}")
    measure = next(iter(rows[row]))
    wanted = _number(other)
    if wanted is not None:
        return None if rows[row][measure] >= wanted else f"{text} ({measure} is {rows[row][measure]:.3f})"
    pairs = {(each["system"], each["baseline"]): each for each in report["comparisons"]}
    found = pairs.get((row, other))
    if found is None:
        raise CardError(f"expect: {row!r} is not compared with {other!r}", where=where)
    difference, p = found["difference"], found["p"]
    kept = difference > 0 and p < LEVEL if how == ">" else difference >= 0 or p >= LEVEL
    return None if kept else f"{text} (difference {difference:+.3f}, p {p:.3f})"


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
