"""The words that tell a document from the others of its collection: frequent in it, rare elsewhere.

One word's weight is its count in the document times log(N / documents with it); two words that stand side by side count
together where they do so in more than one document. A stand-in for keyphrase extraction that needs no model.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any

WORD = re.compile(r"[^\W_]+(?:[-'’.][^\W_]+)*")
PAIR = 1.4
"""What two words together weigh above their mean."""


@lru_cache(maxsize=1)
def stop_words() -> frozenset[str]:
    """English words that say nothing alone."""
    from bm25s.stopwords import STOPWORDS_EN_PLUS

    return frozenset(STOPWORDS_EN_PLUS)


def words_of(text: str) -> list[str]:
    """The words of a text, in lower case, in their order."""
    return [word.lower() for word in WORD.findall(text)]


@lru_cache(maxsize=1)
def _stemmer() -> Any:
    import Stemmer

    return Stemmer.Stemmer("english")


def stems(words: Sequence[str]) -> list[str]:
    """What is left of words without their endings."""
    found: list[str] = _stemmer().stemWords(list(words))
    return found


class Salient:
    """Document frequencies of a collection. ``texts`` is read once."""

    def __init__(self, texts: Iterable[str]) -> None:
        self.count = 0
        self.frequency: Counter[str] = Counter()
        for text in texts:
            self.count += 1
            self.frequency.update(set(_terms(words_of(text))))

    def terms(self, text: str, most: int) -> list[str]:
        """The ``most`` most telling terms of one of the texts, best first; none of them inside another."""
        counts = Counter(_terms(words_of(text)))
        weights = {term: self._weight(term, count) for term, count in counts.items()}
        found: list[str] = []
        taken: set[str] = set()
        for term in sorted(weights, key=lambda term: (-weights[term], term)):
            parts = set(stems(term.split()))
            if weights[term] > 0 and not parts & taken:
                found.append(term)
                taken |= parts
            if len(found) == most:
                break
        return found

    def telling(self, text: str, most: int) -> list[str]:
        """The ``most`` rarest words of a text that mean something, each once, in the text's order."""
        words = dict.fromkeys(word for word in words_of(text) if len(word) > 2 and word not in stop_words())
        rarest = set(sorted(words, key=lambda word: (self.frequency.get(word, 1), word))[:most])
        return [word for word in words if word in rarest]

    def _weight(self, term: str, count: int) -> float:
        here = self.frequency.get(term, 1)
        rare = math.log(max(self.count, 1) / here) if here < self.count else 0.0
        if " " not in term:
            return count * rare
        return PAIR * count * rare if here > 1 or count > 1 else 0.0


def _terms(words: Sequence[str]) -> list[str]:
    """Words that mean something, and every two of them that stand side by side."""
    stop = stop_words()
    keep = [len(word) > 2 and word not in stop and not word.isdigit() for word in words]
    single = [word for word, kept in zip(words, keep, strict=True) if kept]
    pairs = [
        f"{one} {other}"
        for at, (one, other) in enumerate(pairwise(words))
        if keep[at] and keep[at + 1] and one != other
    ]
    return single + pairs
