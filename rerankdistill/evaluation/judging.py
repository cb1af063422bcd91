"""A person's judgements: which pairs are worth asking about, and a log that loses none of the answers.

Two systems differ on a query by where they put its documents. A document that is relevant moves the difference of
their DCG@10 by its gain times the difference of its two discounts, so the pairs with the largest such difference say
most about which is better (compare Carterette, Allan, Sitaraman 2006, "Minimal test collections", SIGIR, who order
judgements by their effect on a difference of AP).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from rerankdistill.appended import append, replay
from rerankdistill.types import Judgement, Run

DEPTH = 10
MOST = 3
"""The highest grade."""


class Pair(NamedTuple):
    """A document that two systems rank differently for a query.

    Attributes:
        effect: what a gain of one for it adds to the first system's DCG@10 over the second's.
    """

    query_id: str
    doc_id: str
    effect: float


def discount(place: int | None, depth: int = DEPTH) -> float:
    """1 / log2(1 + place), places from 1; nothing from beyond ``depth`` on, or for a document that was not found."""
    return 1 / math.log2(1 + place) if place is not None and place <= depth else 0.0


def telling_pairs(one: Run, other: Run, depth: int = DEPTH) -> list[Pair]:
    """Every pair that either system has in its first ``depth`` at another place than the other, those first that
    decide most. By hand: first in one and second in the other: 1 - 1 / log2(3) = 0.369."""
    places = [_places(run, depth) for run in (one, other)]
    pairs = []
    for query_id in sorted(places[0].keys() | places[1].keys()):
        mine, theirs = (each.get(query_id, {}) for each in places)
        for doc_id in sorted(mine.keys() | theirs.keys()):
            effect = discount(mine.get(doc_id), depth) - discount(theirs.get(doc_id), depth)
            if abs(effect) > 1e-9:
                pairs.append(Pair(query_id, doc_id, effect))
    return sorted(pairs, key=lambda pair: -abs(pair.effect))


def _places(run: Run, depth: int) -> dict[str, dict[str, int]]:
    return {query_id: {hit.doc_id: at for at, hit in enumerate(hits[:depth], 1)} for query_id, hits in run}


def difference(pairs: list[Pair], grades: dict[tuple[str, str], int | None]) -> float:
    """By how much the first system's DCG@10 is above the second's, by what was judged: a sum over the queries, with
    gain 2^grade - 1."""
    known = ((grades.get((pair.query_id, pair.doc_id)) or 0, pair.effect) for pair in pairs)
    return float(sum((2**grade - 1) * effect for grade, effect in known))


class Answers:
    """Answers in a file of JSON lines, each on the disk before the next question is asked.

    Attributes:
        grades: of ``(query_id, doc_id)``; None where the pair was skipped.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._order: list[tuple[str, str]] = []
        self.grades: dict[tuple[str, str], int | None] = {}
        if path.exists():
            replay(path, self._replayed, "take the line out; the others are kept")

    def give(self, query_id: str, doc_id: str, grade: int | None) -> None:
        """Take down an answer; None: skipped. It is on the disk when this returns."""
        append(self.path, [{"query_id": query_id, "doc_id": doc_id, "grade": grade}])
        self._take((query_id, doc_id), grade, False)

    def undo(self) -> tuple[str, str] | None:
        """Take back the last answer. Returns its pair; None where there is none."""
        if not self._order:
            return None
        key = self._order[-1]
        append(self.path, [{"query_id": key[0], "doc_id": key[1], "grade": None, "undone": True}])
        self._take(key, None, True)
        return key

    def judgements(self) -> Iterator[Judgement]:
        """What was judged, in the order of the answers."""
        for key in self._order:
            grade = self.grades[key]
            if grade is not None:
                yield Judgement(*key, grade)

    def _replayed(self, row: Any) -> None:
        self._take((str(row["query_id"]), str(row["doc_id"])), row["grade"], bool(row.get("undone")))

    def _take(self, key: tuple[str, str], grade: int | None, undone: bool) -> None:
        if key in self.grades:
            self._order.remove(key)
            del self.grades[key]
        if not undone:
            self._order.append(key)
            self.grades[key] = grade
