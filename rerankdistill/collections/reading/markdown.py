"""Markdown, by markdown-it: headings make sections, code is kept as it is, front matter gives the title."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from rerankdistill.collections.reading.parts import Section, headed, squeezed

FRONT = re.compile(r"\A---\s*\n(.*?)\n---\s*(?:\n|\Z)", re.DOTALL)
TITLE = re.compile(r"^title:\s*(.+?)\s*$", re.MULTILINE | re.IGNORECASE)


def read(text: str) -> Iterator[Section]:
    """The sections of a markdown text."""
    from markdown_it import MarkdownIt

    front = FRONT.match(text)
    named = TITLE.search(front[1]) if front else None
    path = [named[1].strip("\"'")] if named else []
    base = len(path)
    held: list[str] = []
    tokens = MarkdownIt("commonmark").enable("table").parse(text[front.end() :] if front else text)
    for at, token in enumerate(tokens):
        if token.type == "heading_open":
            if held:
                yield Section(headed(path), "\n\n".join(held))
                held = []
            depth = base + int(token.tag[1:]) - 1
            path = [*path[:depth], *[""] * (depth - len(path)), _plain(tokens[at + 1])]
        elif token.type == "inline" and tokens[at - 1].type != "heading_open":
            held.append(_plain(token))
        elif token.type in ("fence", "code_block"):
            held.append(squeezed(token.content))
    if held:
        yield Section(headed(path), "\n\n".join(filter(None, held)))


def _plain(token: Any) -> str:
    """The words of an inline token, without its marks and without addresses."""
    parts = [
        child.content if child.type in ("text", "code_inline") else " "
        for child in token.children or ()
        if child.type in ("text", "code_inline", "softbreak", "hardbreak")
    ]
    return squeezed("".join(parts))
