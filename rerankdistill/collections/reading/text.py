"""Plain text: paragraphs between empty lines; underlined lines are headings."""

from __future__ import annotations

import re
from collections.abc import Iterator

from rerankdistill.collections.reading.parts import Section, headed, squeezed

RULE = re.compile(r"^([=\-~^\"'`#*+.:_])\1{2,}\s*$")
"""An underline of a heading, as in reStructuredText and in many a README."""
LONGEST_HEADING = 120


def read(text: str) -> Iterator[Section]:
    """The sections of a text; without a heading there is one, whose title is empty."""
    path: list[str] = []
    marks: list[str] = []
    held: list[str] = []
    for block in _blocks(text):
        heading, mark = _heading(block)
        if not heading:
            held.append(squeezed(block))
            continue
        if held:
            yield Section(headed(path), "\n\n".join(held))
            held = []
        if mark not in marks:
            marks.append(mark)
        depth = marks.index(mark)
        marks = marks[: depth + 1]
        path = [*path[:depth], heading]
    if held:
        yield Section(headed(path), "\n\n".join(held))


def _blocks(text: str) -> Iterator[str]:
    """Paragraphs, and headings with the underline that makes them headings."""
    lines: list[str] = []
    for line in text.splitlines():
        if RULE.match(line) and len(lines) == 1 and len(lines[0].strip()) <= len(line.strip()) + 2:
            yield f"{lines[0].strip()}\n{line.strip()[:3]}"
            lines = []
        elif line.strip() and not RULE.match(line):
            lines.append(line)
        elif lines:
            yield "\n".join(lines)
            lines = []
    if lines:
        yield "\n".join(lines)


def _heading(block: str) -> tuple[str, str]:
    """``(heading, its mark)`` of a block that is one, else empty."""
    first, _, second = block.partition("\n")
    if second and RULE.match(second) and 0 < len(first) <= LONGEST_HEADING:
        return squeezed(first), second[0]
    return "", ""
