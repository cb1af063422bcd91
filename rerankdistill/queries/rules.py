"""Queries without a language model: titles, first sentences, any sentence, telling words, and questions about them.

What is drawn depends on the seed, the document's id and the style alone: the same every time, whatever else is asked.
"""

from __future__ import annotations

import hashlib
import re

import numpy as np

from rerankdistill.queries.salient import Salient
from rerankdistill.queries.styles import StyleCard
from rerankdistill.types import Doc

SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[\"'(]?[A-Z0-9])|(?<=\s[.!?])\s+")
"""Where a sentence ends; in texts without capitals, where a full stop stands alone."""
STRETCH = 20
"""Words of a stretch of text, where there is no sentence."""
QUESTIONS = (
    "what is {0}", "how does {0} work", "how is {0} related to {1}", "what is the effect of {0} on {1}", "{0} and {1}",
    "why does {0} matter for {1}", "how to use {0} with {1}", "what is known about {0}",
)  # fmt: skip
"""Questions about one or two telling terms."""


def write(doc: Doc, style: StyleCard, salient: Salient, seed: int) -> str:
    """A query of a style about a document; empty where the document gives none."""
    chance = _chance(seed, style.name, doc.doc_id)
    made = {
        "title": _title,
        "first": _first,
        "sentence": _sentence,
        "gist": _gist,
        "keywords": _keywords,
        "question": _question,
    }
    return made[style.rule](doc, style, salient, chance) if style.rule else ""


def _title(doc: Doc, style: StyleCard, salient: Salient, chance: np.random.Generator) -> str:  # noqa: ARG001
    return doc.title.rpartition(" · ")[2].strip()


def _first(doc: Doc, style: StyleCard, salient: Salient, chance: np.random.Generator) -> str:  # noqa: ARG001
    return next(iter(_fitting(doc, style)), "")


def _sentence(doc: Doc, style: StyleCard, salient: Salient, chance: np.random.Generator) -> str:  # noqa: ARG001
    found = _fitting(doc, style)
    return found[int(chance.integers(len(found)))] if found else ""


def _gist(doc: Doc, style: StyleCard, salient: Salient, chance: np.random.Generator) -> str:
    """Three to eight of a sentence's rarest words, in its order: what is said, without how."""
    sentence = _sentence(doc, style, salient, chance)
    return " ".join(salient.telling(sentence, int(chance.integers(3, 9))))


def _keywords(doc: Doc, style: StyleCard, salient: Salient, chance: np.random.Generator) -> str:  # noqa: ARG001
    """Two to four of the six most telling terms."""
    terms = salient.terms(f"{doc.title} {doc.text}", 6)
    if not terms:
        return ""
    count = min(int(chance.integers(2, 5)), len(terms))
    return " ".join(terms[at] for at in chance.permutation(len(terms))[:count])


def _question(doc: Doc, style: StyleCard, salient: Salient, chance: np.random.Generator) -> str:  # noqa: ARG001
    terms = salient.terms(f"{doc.title} {doc.text}", 4)
    if not terms:
        return ""
    fitting = [form for form in QUESTIONS if "{1}" not in form or len(terms) > 1]
    chosen = [terms[at] for at in chance.permutation(len(terms))[:2]]
    return fitting[int(chance.integers(len(fitting)))].format(*chosen)


def _fitting(doc: Doc, style: StyleCard) -> list[str]:
    """A document's sentences of a length that the style allows; stretches of it, where nothing says where they end."""
    found = [part.split() for part in SENTENCE.split(doc.text)]
    fitting = [words for words in found if style.least <= len(words) <= style.most]
    if not fitting:
        every, size = doc.text.split(), min(STRETCH, style.most)
        parts = [every[at : at + size] for at in range(0, len(every), size)]
        fitting = [words for words in parts if len(words) >= style.least]
    return [" ".join(words) for words in fitting]


def _chance(*key: object) -> np.random.Generator:
    digest = hashlib.sha256("\x1f".join(str(part) for part in key).encode("utf-8", "surrogatepass")).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "little"))
