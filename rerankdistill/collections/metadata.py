"""What documents carry beside title and text, by field: what a search can be narrowed by.

Read of a folder's ``corpus.jsonl``: the fields of each line's ``metadata``, and what else stands in the line. Every
collection has the field ``doc_id``.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rerankdistill.cards import Card
from rerankdistill.collections.files import lines
from rerankdistill.contracts import Source
from rerankdistill.errors import UsageError

KNOWN = {"_id", "id", "doc_id", "docid", "title", "text", "contents", "body", "metadata"}
ID = "doc_id"
MOST_VALUES = 50
"""A field with more values than these is none to choose from."""

Value = str | int | float | bool


class Filter(Card):
    """One condition on a field: each of what is given must hold. A document without the field does not pass."""

    field: str
    equals: Value | None = None
    any_of: tuple[Value, ...] = ()
    at_least: float | str | None = None
    at_most: float | str | None = None
    prefix: str = ""

    def holds(self, value: Any) -> bool:
        """Whether a document's value passes; of a list one of its members must."""
        if isinstance(value, list):
            return any(self.holds(each) for each in value)
        if value is None or (self.equals is not None and value != self.equals):
            return False
        if self.any_of and value not in self.any_of:
            return False
        if self.prefix and not str(value).startswith(self.prefix):
            return False
        return _within(value, self.at_least, self.at_most)


def _within(value: Any, low: float | str | None, high: float | str | None) -> bool:
    """Numbers are compared with numbers and texts with texts, as ISO dates are; anything else is not within."""
    for bound, sign in ((low, 1), (high, -1)):
        if bound is None:
            continue
        if isinstance(bound, str) != isinstance(value, str) or isinstance(value, dict):
            return False
        if (value < bound) if sign > 0 else (value > bound):
            return False
    return True


class Metadata:
    """``columns``: for each field a value a document, None where it has none, in the order of ``doc_ids``."""

    def __init__(self, doc_ids: Sequence[str], columns: Mapping[str, Sequence[Any]]) -> None:
        self.doc_ids, self.columns = doc_ids, {ID: doc_ids, **columns}
        self._rows = {doc_id: row for row, doc_id in enumerate(doc_ids)}

    def __contains__(self, doc_id: object) -> bool:
        return doc_id in self._rows

    @cached_property
    def fields(self) -> dict[str, list[Value]]:
        """Each field, with its values where there are few, the most frequent first."""
        found: dict[str, list[Value]] = {}
        for name, column in self.columns.items():
            seen = Counter(value for value in _flat(column) if isinstance(value, Value))
            few = name != ID and len(seen) <= MOST_VALUES
            found[name] = [value for value, _ in seen.most_common()] if few else []
        return found

    def of(self, doc_id: str) -> dict[str, Any]:
        """The metadata of one document."""
        row = self._rows[doc_id]
        return {name: column[row] for name, column in self.columns.items() if name != ID and column[row] is not None}

    def passing(self, filters: Iterable[Filter]) -> NDArray[np.bool_]:
        """``[n]`` which documents every filter lets through. Raises UsageError: there is no such field."""
        passes = np.ones(len(self.doc_ids), bool)
        for each in filters:
            if each.field not in self.columns:
                known = ", ".join(self.columns)
                raise UsageError(f"the documents have no field {each.field!r}", where="filters", fix=f"known: {known}")
            passes &= np.fromiter((each.holds(value) for value in self.columns[each.field]), bool, len(passes))
        return passes

    def row(self, doc_id: str) -> int:
        return self._rows[doc_id]


def _flat(column: Iterable[Any]) -> Iterable[Any]:
    for value in column:
        if isinstance(value, list):
            yield from value
        elif value is not None:
            yield value


def read_metadata(source: Source) -> Metadata:
    """The metadata of a collection; of one that is no folder with a ``corpus.jsonl`` the ids alone."""
    doc_ids = list(source.doc_ids())
    corpus: Path | None = getattr(source, "corpus", None)
    if corpus is None or ".jsonl" not in corpus.suffixes:
        return Metadata(doc_ids, {})
    rows = {doc_id: row for row, doc_id in enumerate(doc_ids)}
    columns: dict[str, list[Any]] = {}
    for _, line in lines(corpus):
        given = json.loads(line)
        name = next((str(given[key]) for key in ("_id", "id", "doc_id", "docid") if key in given), "")
        if name not in rows:
            continue
        more = given.get("metadata")
        about = {key: value for key, value in given.items() if key not in KNOWN}
        for key, value in {**about, **(more if isinstance(more, dict) else {})}.items():
            columns.setdefault(key, [None] * len(doc_ids))[rows[name]] = value
    return Metadata(doc_ids, columns)
