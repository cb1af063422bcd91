"""WordNet's dictionary files as Debian's package ``wordnet-base`` lays them: senses of a word, and base forms.

The formats are those of wndb(5WN); the rules for base forms are those of morphy(7WN), of nouns and verbs.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

HOME = Path("/usr/share/wordnet")
ENDINGS = {
    "noun": (("ses", "s"), ("xes", "x"), ("ches", "ch"), ("shes", "sh"), ("ies", "y"), ("men", "man"), ("s", "")),
    "verb": (("ies", "y"), ("es", "e"), ("es", ""), ("ed", "e"), ("ed", ""), ("ing", "e"), ("ing", ""), ("s", "")),
    "adj": (("er", ""), ("est", ""), ("er", "e"), ("est", "e")),
    "adv": (),
}


@lru_cache(maxsize=8)
def _index(part: str) -> dict[str, tuple[int, int]]:
    """``{lemma: (senses that were met in tagged texts, place of the most frequent one in the data file)}``."""
    found = {}
    for line in (HOME / f"index.{part}").read_text("utf-8").splitlines():
        if not line.startswith(" "):
            fields = line.split()
            pointers = int(fields[3])
            found[fields[0]] = int(fields[5 + pointers]), int(fields[6 + pointers])
    return found


@lru_cache(maxsize=8)
def _exceptions(part: str) -> dict[str, str]:
    lines = (HOME / f"{part}.exc").read_text("utf-8").splitlines()
    return {line.split()[0]: line.split()[1] for line in lines if len(line.split()) > 1}


@lru_cache(maxsize=8)
def _data(part: str) -> bytes:
    return (HOME / f"data.{part}").read_bytes()


def base(word: str, part: str) -> str:
    """A word's base form as a ``noun``, ``verb``, ``adj`` or ``adv``; empty where it is none."""
    known = _index(part)
    if word in _exceptions(part):
        return _exceptions(part)[word]
    if word in known:
        return word
    tried = (word.removesuffix(old) + new for old, new in ENDINGS[part] if word.endswith(old))
    return next((each for each in tried if each in known), "")


def synonyms(word: str) -> Iterator[str]:
    """The other lemmas of the most frequent sense of a word, as the part of speech that it is most often."""
    known = [(_index(part)[lemma], part, lemma) for part in ENDINGS if (lemma := base(word, part)) in _index(part)]
    if known:
        (_, place), part, lemma = max(known)
        fields = _data(part)[place : _data(part).index(b"\n", place)].decode("utf-8").split()
        lemmas = (fields[4 + 2 * at].partition("(")[0] for at in range(int(fields[3], 16)))
        yield from (each.replace("_", " ").lower() for each in lemmas if each.lower() not in (lemma, word))
