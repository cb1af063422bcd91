"""Filters: which generated queries are worth training on, and for each filter how many were left, with examples.

Each looks at one thing and says which queries pass; :class:`Funnel` applies them in their order and remembers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from rerankdistill.queries.generate import Generated
from rerankdistill.queries.salient import stems, stop_words, words_of
from rerankdistill.queries.styles import StyleCard

Passes = Callable[[Sequence[Generated]], Sequence[bool]]
SHOWN = 3

ABOUT_THE_TEXT = re.compile(
    r"\b(the|this|that|above|following|given) (passage|text|document|article|paragraph|excerpt|author)s?\b",
    re.IGNORECASE,
)
BABBLE = re.compile(r"(.)\1{5,}|\b(\w+)( \2\b){3,}|https?://|```|^\W+$")


@dataclass
class Sieve:
    """What one filter did: how many came, how many passed, and some that did not."""

    name: str
    came: int
    passed: int
    examples: tuple[str, ...] = ()


@dataclass
class Funnel:
    """Queries on their way through the filters."""

    queries: list[Generated]
    sieves: list[Sieve] = field(default_factory=list)

    def apply(self, name: str, passes: Passes) -> Funnel:
        """Keep those that pass."""
        kept = passes(self.queries) if self.queries else []
        out = [query for query, keep in zip(self.queries, kept, strict=True) if not keep]
        left = [query for query, keep in zip(self.queries, kept, strict=True) if keep]
        step = max(1, len(out) // SHOWN)
        examples = tuple(query.text for query in out[::step][:SHOWN])
        self.sieves.append(Sieve(name, len(self.queries), len(left), examples))
        self.queries = left
        return self


def well_formed(styles: Mapping[str, StyleCard]) -> Passes:
    """As many words as the style allows, a letter among them, nothing repeated without end, no address, and no talk of
    "the passage": whoever searches has none before their eyes."""

    def one(query: Generated) -> bool:
        style = styles[query.style]
        count = len(query.text.split())
        if not style.least <= count <= style.most or not any(letter.isalpha() for letter in query.text):
            return False
        return not BABBLE.search(query.text) and not ABOUT_THE_TEXT.search(query.text)

    return lambda queries: [one(query) for query in queries]


def not_copied(styles: Mapping[str, StyleCard], texts: Mapping[str, str], share: float = 0.8) -> Passes:
    """Less than ``share`` of a query's words may stand in its document as one run; a style may allow copies."""

    def one(query: Generated) -> bool:
        if styles[query.style].copies:
            return True
        words = words_of(query.text)
        return longest_run(words, words_of(texts[query.doc_id])) < share * max(len(words), 3)

    return lambda queries: [one(query) for query in queries]


def longest_run(words: Sequence[str], text: Sequence[str]) -> int:
    """The most words in a row that both have."""
    best, before = 0, [0] * (len(text) + 1)
    for word in words:
        now = [0] * (len(text) + 1)
        for at, other in enumerate(text, 1):
            if word == other:
                now[at] = before[at - 1] + 1
                best = max(best, now[at])
        before = now
    return best


def same_script(texts: Mapping[str, str]) -> Passes:
    """A query is written in its document's script: a model that falls into another language mostly changes it."""

    def one(query: Generated) -> bool:
        return bool(scripts(query.text) & scripts(texts[query.doc_id])) or not scripts(query.text)

    return lambda queries: [one(query) for query in queries]


def scripts(text: str) -> frozenset[str]:
    """The blocks of letters that make up a fifth of a text's letters or more."""
    letters = [letter for letter in text if letter.isalpha()]
    blocks: dict[str, int] = {}
    for letter in letters:
        block = _block(ord(letter))
        blocks[block] = blocks.get(block, 0) + 1
    return frozenset(block for block, count in blocks.items() if 5 * count >= len(letters))


def _block(code: int) -> str:
    known = ((0x250, "latin"), (0x400, "greek"), (0x530, "cyrillic"), (0x600, "hebrew"), (0x900, "arabic"))
    for end, name in known:
        if code < end:
            return name
    return "east asian" if 0x2E80 <= code <= 0xFAFF else f"block {code >> 7}"


def distinct(queries: Sequence[Generated]) -> list[bool]:
    """The first of those that ask with the same meaningful words, in whatever order and form."""
    seen: set[frozenset[str]] = set()
    kept = []
    for query in queries:
        words = content(query.text)
        kept.append(words not in seen)
        seen.add(words)
    return kept


def content(text: str) -> frozenset[str]:
    """The stems of a text's meaningful words; of a text that has none, of all its words."""
    words = words_of(text)
    kept = [word for word in words if word not in stop_words()] or words
    return frozenset(stems(kept))


def found_again(rank_of: Mapping[str, int], depth: int) -> Passes:
    """Round trip: a first stage finds the document that a query was written from among its first ``depth``. ``rank_of``
    gives the rank of a query's own document, from 1; none where it was not found."""
    return lambda queries: [rank_of.get(query.query_id, depth + 1) <= depth for query in queries]


def scored_above(score_of: Mapping[str, float], percentile: float) -> Passes:
    """The teacher's score of the query's own document is not among the lowest ``percentile`` percent of them all."""
    import numpy as np

    known = [score for score in score_of.values() if score == score]
    floor = float(np.percentile(known, percentile)) if known else float("-inf")
    return lambda queries: [score_of.get(query.query_id, float("-inf")) >= floor for query in queries]
