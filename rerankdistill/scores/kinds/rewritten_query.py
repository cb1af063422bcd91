"""A teacher that is shown another text of the query than the student reads: DiSCo's (Lupart et al. 2024,
arXiv:2410.14609).

Another teacher's card does the scoring; here its queries are replaced by id, from a file of rewritten ones (by a
person, or a language model that resolved a conversation). What is said of a pair belongs to the query's own text all
the same, so that the student learns to see in it what the teacher saw in the other.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

from rerankdistill.artifacts import fingerprint
from rerankdistill.cards import Card, parse
from rerankdistill.contracts import Teacher
from rerankdistill.errors import CardError, DataError
from rerankdistill.scores.card import Context, EnsembleCard, Placed, ScorerCard, load_placed, load_teacher
from rerankdistill.types import Answer, FloatArray, Group, Query, Scale, View

SHOWN = 5
"""How many unknown ids an error names."""


class RewrittenQueryOptions(Card):
    """Whose scores, of which texts.

    Attributes:
        teacher: the card that scores, by name or path; no ensemble, and not another ``rewritten_query``.
        queries: a ``.jsonl`` file with ``query_id`` and ``text``, or lines of ``query_id<TAB>text``; beside the card
            where it is a relative path.
        missing: a query that the file lacks is refused, or scored with its ``original`` text.
    """

    teacher: str
    queries: str
    missing: Literal["refuse", "original"] = "refuse"


class Kind:
    """Another teacher with other queries; scale, unit, what is kept, costs and batches are that teacher's.

    Args:
        inner: the teacher that scores.
        texts: ``{query_id: text}`` that it is shown.
    """

    Options = RewrittenQueryOptions

    def __init__(self, inner: Teacher, texts: Mapping[str, str], missing: str = "refuse", where: str = "") -> None:
        self.inner, self.texts, self.missing, self.where = inner, dict(texts), missing, where
        self.scale: Scale = inner.scale
        self.view: View = inner.view
        self.needs_texts = inner.needs_texts
        self.partial = bool(getattr(inner, "partial", False))
        self.unit = str(getattr(inner, "unit", "pair"))
        self.keeps = tuple(getattr(inner, "keeps", ()))
        if hasattr(inner, "batch_pairs"):
            self.batch_pairs = inner.batch_pairs

    @classmethod
    def open(cls, card: ScorerCard, context: Context) -> Self:
        """The teacher of a card; the one behind it is opened with ``context.open_card``.

        Raises:
            CardError: mistakes in the options, a teacher that cannot stand behind this one, another scale than its.
            DataError: the file of queries is not there or cannot be read; names the line.
        """
        options = parse(RewrittenQueryOptions, card.options, f"{card.name}: options")
        if context.open_card is None:
            what = "a rewritten_query teacher stands before another one, which nobody here can open"
            raise CardError(what, where=card.name, fix="open it in a pipeline, or give Context.open_card")
        inner = cls.wraps(card, context)[0].card
        card.require_scale(inner.scale)
        path = _place(options, context)
        return cls(context.open_card(inner), read_queries(path), options.missing, str(path))

    @classmethod
    def wraps(cls, card: ScorerCard, context: Context) -> tuple[Placed, str]:
        """The card behind this one, in this one's view, and a mark of what is put before it.

        Raises:
            CardError, DataError: see :meth:`open`.
        """
        options = parse(RewrittenQueryOptions, card.options, f"{card.name}: options")
        beside = context.base / options.teacher
        name = str(beside) if beside.suffix == ".toml" and beside.is_file() else options.teacher
        if isinstance(load_teacher(name), EnsembleCard):
            fix = "write one rewritten_query card for each member, and an ensemble of those"
            raise CardError(f"{options.teacher!r} is an ensemble", where=card.name, fix=fix)
        inner = load_placed(name)[0]
        if inner.card.kind == card.kind:
            fix = "name the teacher that scores"
            raise CardError(f"{options.teacher!r} rewrites queries itself", where=card.name, fix=fix)
        mark = _mark(read_queries(_place(options, context)), options.missing)
        return inner._replace(card=inner.card.model_copy(update={"view": card.view})), mark

    @property
    def fingerprint(self) -> str:
        """Of the teacher that scores and of the texts that it is shown."""
        return fingerprint("rewritten_query", self.inner.fingerprint, _mark(self.texts, self.missing))

    @property
    def usage(self) -> Mapping[str, float]:
        """The counters of the teacher that scores."""
        found: Mapping[str, float] = getattr(self.inner, "usage", {})
        return found

    def spent(self, usage: Mapping[str, float]) -> None:
        """What earlier runs have cost the teacher that scores."""
        if hasattr(self.inner, "spent"):
            self.inner.spent(usage)

    def check(self, queries: Sequence[Query]) -> None:
        """Look at all queries before the first is scored.

        Raises:
            DataError: queries that the file lacks; or two of the same text with different rewritten ones, whose scores
                a store by texts could not tell apart.
        """
        shown = self._shown(queries)
        known: dict[str, tuple[str, str]] = {}
        for query, text in zip(queries, shown, strict=True):
            first, seen = known.setdefault(query.text, (query.query_id, text))
            if seen != text and self.needs_texts:
                what = f"queries {first!r} and {query.query_id!r} have the same text and are rewritten differently"
                fix = "give the student more of the conversation, so that their texts differ"
                raise DataError(what, where=self.where, fix=fix)

    def judge(self, groups: Sequence[Group]) -> Sequence[FloatArray | Answer]:
        """What the teacher behind says of the rewritten queries. Raises DataError for a query that the file lacks."""
        shown = self._shown([group.query for group in groups])
        moved = [
            Group(Query(group.query.query_id, text), group.doc_ids, group.texts)
            for group, text in zip(groups, shown, strict=True)
        ]
        return self.inner.judge(moved)

    def _shown(self, queries: Sequence[Query]) -> list[str]:
        lacking = list(dict.fromkeys(query.query_id for query in queries if query.query_id not in self.texts))
        if lacking and self.missing == "refuse":
            names = ", ".join(lacking[:SHOWN]) + (", …" if len(lacking) > SHOWN else "")
            fix = "add them to the file, or set options.missing = 'original' to score them as they are"
            raise DataError(f"{len(lacking)} queries have no rewritten text: {names}", where=self.where, fix=fix)
        return [self.texts.get(query.query_id, query.text) for query in queries]


def read_queries(path: Path) -> dict[str, str]:
    """``{query_id: text}`` of a ``.jsonl`` file, or of lines ``query_id<TAB>text``.

    Raises:
        DataError: no such file, not UTF-8, empty, a line that is none of these, or two texts for one id.
    """
    found: dict[str, str] = {}
    try:
        for number, query_id, text in _lines(path):
            if found.setdefault(query_id, text) != text:
                raise DataError(f"query {query_id!r} has two texts", where=f"{path}, line {number}")
    except OSError as error:
        fix = "set options.queries in the teacher's card; a relative path starts at the card"
        raise DataError(f"the rewritten queries cannot be read: {error.strerror}", where=str(path), fix=fix) from error
    except UnicodeDecodeError as error:
        raise DataError("not UTF-8", where=str(path), fix="save the file as UTF-8") from error
    if not found:
        raise DataError("there is no query in this file", where=str(path))
    return found


def _lines(path: Path) -> Iterator[tuple[int, str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        rows: Iterator[Any] = (line for line in file)
        if path.suffix != ".jsonl":
            rows = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        for number, row in enumerate(rows, 1):
            if not row or (isinstance(row, str) and not row.strip()):
                continue
            fields = _object(row) if isinstance(row, str) else row
            if len(fields) != 2 or not all(isinstance(field, str) and field.strip() for field in fields):
                shape = '{"query_id": "…", "text": "…"}' if path.suffix == ".jsonl" else "query_id<TAB>text"
                raise DataError(f"not a line of {shape}: {str(row)[:80]!r}", where=f"{path}, line {number}")
            if number > 1 or list(fields) != ["query_id", "text"]:  # a line of column names
                yield number, fields[0], fields[1].strip()


def _object(line: str) -> list[Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError:
        return []
    return [str(row["query_id"]), row["text"]] if isinstance(row, dict) and {"query_id", "text"} <= set(row) else []


def _place(options: RewrittenQueryOptions, context: Context) -> Path:
    return context.base / Path(options.queries).expanduser()


def _mark(texts: Mapping[str, str], missing: str) -> str:
    return fingerprint("rewritten queries", sorted(texts.items()), missing)
