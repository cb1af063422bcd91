"""Light paraphrases of a query: five changes that leave what it asks for as it was, and all five at once.

They were written before the check that has to see through them (:mod:`rerankdistill.queries.leakage`), and are not to
be changed with it. Synonyms are WordNet's, as Debian's package ``wordnet-base`` carries them.
"""

from __future__ import annotations

import random
import re
from functools import cache

from wordnet import base
from wordnet import synonyms as wordnet_synonyms

FUNCTION_WORDS = """
a an the of in on at to for from by with and or is are was were be been do does did can could what which how when where
why who that this these those it its as about into than there their
"""
STOP = frozenset(FUNCTION_WORDS.split())
KINDS = ("case", "stop words", "order", "plurals", "synonyms", "all")


def case(text: str, chance: random.Random) -> str:
    """Another case: all capitals, or a capital before every word."""
    return text.upper() if chance.random() < 0.5 else text.title()


def stop_words(text: str, chance: random.Random) -> str:
    """Without function words."""
    kept = [word for word in text.split() if word.lower().strip(".,;:?!") not in STOP]
    return " ".join(kept) or text


def order(text: str, chance: random.Random) -> str:
    """The second half first."""
    words = text.rstrip(".?! ").split()
    cut = len(words) // 2
    return " ".join(words[cut:] + words[:cut])


def plurals(text: str, chance: random.Random) -> str:
    """Every noun in its other number."""
    return re.sub(r"[A-Za-z]{4,}", lambda found: _other_number(found[0]), text)


def synonyms(text: str, chance: random.Random) -> str:
    """One in four of the meaningful words, at least one, replaced by a synonym: another lemma of its most frequent
    sense. Words that have none stay."""
    words = text.split()
    able = [at for at, word in enumerate(words) if _synonym(word)]
    wanted = max(1, sum(word.lower() not in STOP for word in words) // 4)
    for at in chance.sample(able, min(wanted, len(able))):
        words[at] = _synonym(words[at])
    return " ".join(words)


def paraphrase(text: str, kind: str, seed: int) -> str:
    """The query, changed in one way or in all."""
    chance = random.Random(f"{seed} {kind} {text}")
    if kind == "all":
        for change in (synonyms, plurals, stop_words, order, case):
            text = change(text, chance)
        return text
    changes = {"case": case, "stop words": stop_words, "order": order, "plurals": plurals, "synonyms": synonyms}
    return changes[kind](text, chance)


@cache
def _other_number(word: str) -> str:
    singular = "" if word.lower() in STOP else base(word.lower(), "noun")
    if not singular:
        return word
    if singular != word.lower():
        return singular
    if word.endswith("y") and word[-2] not in "aeiou":
        return word[:-1] + "ies"
    return word + ("es" if word.endswith(("s", "x", "ch", "sh")) else "s")


@cache
def _synonym(word: str) -> str:
    plain = word.lower().strip(".,;:?!()")
    return "" if plain in STOP or not plain.isalpha() else next(wordnet_synonyms(plain), "")
