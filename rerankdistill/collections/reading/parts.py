"""What every reader of a format gives, and the errors that pass a file over."""

from __future__ import annotations

from typing import NamedTuple


class Section(NamedTuple):
    """A stretch of a file under one heading: ``title`` is the path of headings down to it, ``text`` its paragraphs
    with empty lines between them."""

    title: str
    text: str


class Unreadable(Exception):
    """A file that gives no text, with the reason that a user is told."""


def squeezed(text: str) -> str:
    """One paragraph on one line: white space runs become single spaces, characters that mean nothing are dropped."""
    return " ".join(text.replace("\x00", " ").replace("\u00ad", "").split())


def headed(path: list[str]) -> str:
    """A path of headings as one title; a heading that only repeats the one above is left out."""
    kept = [part for at, part in enumerate(path) if part and (not at or part != path[at - 1])]
    return " · ".join(kept[:1] + kept[1:][-2:])
