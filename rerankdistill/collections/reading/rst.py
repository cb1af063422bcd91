"""reStructuredText as its reader sees it: roles and references become their words, directives what they are given."""

from __future__ import annotations

import re
from collections.abc import Iterator

from rerankdistill.collections.reading import text as plain
from rerankdistill.collections.reading.parts import Section

SILENT = re.compile(r"^\s*\.\. (_[^:]+:.*|include::.*|index::.*|toctree::.*|highlight::.*|contents::.*)$")
DIRECTIVE = re.compile(r"^(\s*)\.\. (?:[\w:+.-]+)::[ \t]*(.*)$")
FIELD = re.compile(r"^\s+:(maxdepth|hidden|caption|align|alt|target|width|height|class|name|local|depth|lineno\S*):.*$")
ROLE = re.compile(r":[\w:+.-]+:`([^`<]*?)\s*(?:<[^`>]*>)?`")
REFERENCE = re.compile(r"`([^`<]+?)\s*<[^`>]*>`__?|`([^`]+)`_{0,2}|\|([^|\s][^|]*)\|")
LITERAL = re.compile(r"``([^`]+)``")


def read(text: str) -> Iterator[Section]:
    """The sections of a text."""
    return plain.read("\n".join(_line(line) for line in text.splitlines() if not SILENT.match(line)))


def _line(line: str) -> str:
    if FIELD.match(line):
        return ""
    found = DIRECTIVE.match(line)
    line = found[1] + found[2] if found else line
    line = LITERAL.sub(r"\1", ROLE.sub(r"\1", line))
    return REFERENCE.sub(lambda match: next(filter(None, match.groups())), line)
