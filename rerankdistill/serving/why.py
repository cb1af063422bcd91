"""Why a document was found: which of its sentences the engine itself scores highest for the query."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from rerankdistill.lexical import Lexical

END = re.compile(r"(?<=[.!?。！？])\s+|\n+")
SHORT, MOST = 12, 24
"""Characters below which a sentence joins the one before it; sentences of a document that are looked at."""
SHARE, SHOWN = 0.75, 2
"""How near to the best a sentence must come, between the worst and the best; how many are shown."""
WORD = re.compile(r"\w+")


class Span(NamedTuple):
    """A part of a text, from ``start`` to ``end``."""

    start: int
    end: int


def sentences(text: str) -> list[Span]:
    """The sentences of a text; the first :data:`MOST` of them."""
    found: list[Span] = []
    start = 0
    for cut in [*END.finditer(text), None]:
        end = cut.start() if cut else len(text)
        if text[start:end].strip():
            if found and end - start < SHORT:
                found[-1] = Span(found[-1].start, end)
            else:
                lead = len(text[start:end]) - len(text[start:end].lstrip())
                found.append(Span(start + lead, end))
        start = cut.end() if cut else end
    return found[:MOST]


def best(spans: Sequence[Span], scores: Sequence[float]) -> list[tuple[Span, float]]:
    """The sentences that stand out, in the order of the text; none where all score alike and there are several."""
    if not spans:
        return []
    low, high = min(scores), max(scores)
    if len(spans) > 1 and high - low < 1e-6:
        return []
    order = sorted(range(len(spans)), key=lambda at: -scores[at])[:SHOWN]
    kept = [at for at in order if high == low or (scores[at] - low) / (high - low) >= SHARE]
    return [(spans[at], scores[at]) for at in sorted(kept)]


def shared_words(query: str, texts: Sequence[str], lexical: Lexical | None) -> list[float]:
    """How many distinct terms of a query stand in each text; stemmed where there is a BM25 to say how."""
    if lexical is None:
        asked = set(WORD.findall(query.lower()))
        return [float(len(asked & set(WORD.findall(text.lower())))) for text in texts]
    asked, *rest = (set(terms) for terms in lexical.tokens([query, *texts]))
    return [float(len(asked & terms)) for terms in rest]
