"""A pipeline's promises: kept, broken and unreadable."""

from __future__ import annotations

from typing import Any

import pytest

from rerankdistill.errors import CardError, ExpectationNotMet
from rerankdistill.pipeline.card import EvaluateCard
from rerankdistill.pipeline.expect import check


def report(difference: float, p: float) -> dict[str, Any]:
    rows = [{"name": name, "measures": {"ndcg@10": value}} for name, value in (("a", 0.5 + difference), ("b", 0.5))]
    found = {"system": "a", "baseline": "b", "difference": difference, "p": p}
    return {"rows": rows, "comparisons": [found]}


@pytest.mark.parametrize(
    ("difference", "p", "text", "kept"),
    [
        (0.1, 0.01, "a > b", True),
        (0.1, 0.2, "a > b", False),
        (-0.1, 0.01, "a > b", False),
        (-0.1, 0.2, "a >= b", True),
        (-0.1, 0.01, "a >= b", False),
        (0.1, 0.01, "a >= 0.59", True),
        (0.1, 0.01, "a >= 0.61", False),
    ],
)
def test_above_needs_significance_and_not_below_only_its_absence(
    difference: float, p: float, text: str, kept: bool
) -> None:
    if kept:
        check(report(difference, p), [text], "report")
        return
    with pytest.raises(ExpectationNotMet, match="a >") as caught:
        check(report(difference, p), [text], "report")
    assert caught.value.exit_code == 6


def test_every_broken_promise_is_named() -> None:
    with pytest.raises(ExpectationNotMet) as caught:
        check(report(-0.1, 0.01), ["a > b", "a >= b", "b >= 0.4"], "report")
    assert caught.value.what.count("difference -0.100") == 2


@pytest.mark.parametrize("text", ["a > c", "b > a"])
def test_a_promise_about_nothing_is_a_mistake_of_the_card(text: str) -> None:
    with pytest.raises(CardError):
        check(report(0.1, 0.01), [text], "report")


def test_an_unreadable_promise_is_found_before_anything_runs() -> None:
    with pytest.raises(ValueError, match="cannot read"):
        EvaluateCard(expect=("a is better than b",))
