"""Orders of documents as a language model writes them, and the windows in which a list too long for it is sorted.

A window goes from the back of a list to its front: what is best in it is carried along into the next one. Sun et al.,
*Is ChatGPT Good at Search?* (RankGPT), arXiv 2304.09542; Pradeep et al., *RankZephyr*, arXiv 2312.02724.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from rerankdistill.scores.pairs import text_hash
from rerankdistill.types import FloatArray

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
THOUGHT = ("<think>", "</think>")

BRACKETED = re.compile(r"\[([^\[\]]*)\]")
NUMBER = re.compile(r"(?<![0-9A-Za-z])[0-9]+(?![0-9A-Za-z])")
LETTER = re.compile(r"(?<![0-9A-Za-z])[A-Z](?![0-9A-Za-z])")


class Parsed(NamedTuple):
    """What was made of an answer.

    Attributes:
        order: places of documents, best first: always a permutation.
        whole: whether the answer named each identifier once and no other.
    """

    order: list[int]
    whole: bool


class Window(NamedTuple):
    """One question: the documents of list ``row`` that it shows, in their present order."""

    row: int
    places: tuple[int, ...]


def identifiers(count: int, letters: bool = False) -> list[str]:
    """What the documents of a window are called: ``1``, ``2`` …, or ``A``, ``B`` … (26 at most)."""
    return list(LETTERS[:count]) if letters else [str(number + 1) for number in range(count)]


def parse(text: str, count: int, letters: bool = False) -> Parsed:
    """The order of ``count`` documents that a text gives; there is one for every text.

    Identifiers are looked for between square brackets, ``[2] > [1]`` or ``[2, 1]``, and in the whole text only where no
    bracket holds one. What a model thinks between ``<think>`` and ``</think>`` is no answer. An identifier that comes
    again or that no document has is dropped, those that are missing are put behind in their present order; so an
    answer without any leaves the order as it was.
    """
    places = named(text, count, letters)
    first = list(dict.fromkeys(place for place in places if place is not None))
    order = [*first, *sorted(set(range(count)) - set(first))]
    return Parsed(order, len(places) == len(first) == count)


def named(text: str, count: int, letters: bool = False) -> list[int | None]:
    """The places of the documents that a text names, as often as it does; None for what no document is called."""
    text = text.rpartition(THOUGHT[1])[2].partition(THOUGHT[0])[0]
    pattern = LETTER if letters else NUMBER
    found = [name for inside in BRACKETED.findall(text) for name in pattern.findall(inside)] or pattern.findall(text)
    known = {name: place for place, name in enumerate(identifiers(count, letters))}
    return [known.get(name if letters else name.lstrip("0")) for name in found]


def windows(count: int, size: int, step: int, passes: int = 1) -> Iterator[slice]:
    """The windows over a list, from its back to its front, ``passes`` times; the last of a pass begins at 0.

    After one pass the best ``size - step`` documents are in front, in their order, if every answer was right.
    """
    if count < 2:
        return
    for _ in range(passes):
        end = count
        while True:
            start = max(end - size, 0)
            yield slice(start, end)
            if start == 0:
                break
            end -= step


def slide(
    orders: Sequence[list[int]],
    size: int,
    step: int,
    passes: int,
    arrange: Callable[[list[Window]], Sequence[Sequence[int]]],
) -> None:
    """Sort lists in place, all of them at the same time: the first windows of all, then their second ones.

    Args:
        orders: for each list the places of its documents, in the order to start from.
        arrange: given windows, for each a permutation of ``0 … len(window.places) - 1``, best first.
    """
    plans = [list(windows(len(order), size, step, passes)) for order in orders]
    for turn in range(max(map(len, plans), default=0)):
        now = [row for row, plan in enumerate(plans) if turn < len(plan)]
        asked = [Window(row, tuple(orders[row][plans[row][turn]])) for row in now]
        for window, permutation in zip(asked, arrange(asked), strict=True):
            orders[window.row][plans[window.row][turn]] = [window.places[place] for place in permutation]


def shuffled(count: int, seed: int, *texts: str) -> list[int]:
    """A permutation that depends on the seed and on these texts alone, not on what else is asked."""
    places = list(range(count))
    random.Random(text_hash("\0".join((str(seed), *texts)))).shuffle(places)
    return places


def rank_scores(order: Sequence[int]) -> FloatArray:
    """``[n]`` scores of scale rank, by place: ``n - rank``, that is ``n - 1`` for the first and 0 for the last."""
    scores = np.empty(len(order), np.float32)
    scores[list(order)] = np.arange(len(order))[::-1]
    return scores
