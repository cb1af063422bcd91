"""Sections to passages that a small encoder reads whole: paragraphs are packed, and cut between sentences."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from rerankdistill.collections.reading.parts import Section

SENTENCE_END = re.compile(r"(?<=[.!?。！？])\s+")
SLACK = 1.5
"""A passage may be longer than wished by this factor before it is cut in two."""


def passages(sections: Iterable[Section], words: int, least: int) -> Iterator[Section]:
    """Cut one file's sections into passages.

    Args:
        words: what a passage is to have.
        least: a section with fewer words is read together with the one after it; what is left at a file's end is a
            passage only where it is all that there is.
    """
    held = Section("", "")
    given = 0
    for section in sections:
        whole = _joined(held, section)
        if len(whole.text.split()) < least:
            held = whole
            continue
        held = Section("", "")
        for text in _cut(whole.text, words):
            given += 1
            yield Section(whole.title, text)
    if held.text and not given:
        yield held


def _joined(held: Section, section: Section) -> Section:
    """A section with what was too short to stand alone before it, whose heading becomes part of the text."""
    if not held.text:
        return section
    before = f"{held.title}: {held.text}" if held.title and held.title != section.title else held.text
    return Section(section.title, f"{before}\n\n{section.text}")


def _cut(text: str, words: int) -> list[str]:
    """A section's text in passages of about ``words`` words."""
    found: list[list[str]] = [[]]
    size = 0
    for piece in _pieces(text, words):
        length = len(piece.split())
        if size and size + length > words:
            found.append([])
            size = 0
        found[-1].append(piece)
        size += length
    if len(found) > 1 and size < words // 4:
        rest = found.pop()
        found[-1] += rest
    return [" ".join(part) for part in found if part]


def _pieces(text: str, words: int) -> Iterator[str]:
    """Paragraphs; of a long one its sentences; of a long sentence its words, so many at a time."""
    most = round(words * SLACK)
    for paragraph in text.split("\n\n"):
        if len(paragraph.split()) <= most:
            yield paragraph
            continue
        for sentence in SENTENCE_END.split(paragraph):
            tokens = sentence.split()
            if len(tokens) <= most:
                yield sentence
            else:
                yield from (" ".join(tokens[at : at + words]) for at in range(0, len(tokens), words))
