"""Judged documents join the training candidates; nothing of the test gets near them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby

from rerankdistill.candidates.choose import Candidates
from rerankdistill.errors import DataError
from rerankdistill.types import Candidate, Judgement, Query

SOURCE = "judged"


def add_judged(
    candidates: Candidates,
    judgements: Iterable[Judgement],
    *,
    min_grade: int = 1,
    query_ids: Collection[str] | None = None,
) -> Candidates:
    """Append the judged documents that the runs missed. For training only: on test queries this would be cheating.

    Args:
        judgements: of the training split.
        min_grade: grades below this stay out.
        query_ids: the training queries that passed :func:`keep_out`. Judgements of any other query are ignored. Where
            None, the queries that have candidates.

    Returns:
        Candidates in the old order, judged newcomers behind in the order of the judgements; a judged document that a
        run had found keeps its rank. Both get ``judged`` into their source. Queries that had no candidates come last.
    """
    wanted = dict.fromkeys(candidates.query_ids() if query_ids is None else query_ids)
    judged: dict[str, list[str]] = {}
    for judgement in judgements:
        if judgement.query_id in wanted and judgement.grade >= min_grade:
            judged.setdefault(judgement.query_id, []).append(judgement.doc_id)

    def rows() -> Iterator[Candidate]:
        for query_id, group in groupby(candidates.rows(), key=lambda row: row.query_id):
            yield from _joined(query_id, list(group), judged.pop(query_id, []))
        for query_id in wanted:
            yield from _joined(query_id, [], judged.pop(query_id, []))

    return Candidates.from_rows(rows())


def _joined(query_id: str, found: list[Candidate], judged: list[str]) -> Iterator[Candidate]:
    missing = dict.fromkeys(judged)
    rank = 0
    for row in found:
        rank = row.rank
        if row.doc_id in missing:
            del missing[row.doc_id]
            row = row._replace(source=f"{row.source} {SOURCE}")
        yield row
    for new, doc_id in enumerate(missing, rank + 1):
        yield Candidate(query_id, doc_id, new, SOURCE)


@dataclass(frozen=True, slots=True)
class KeptOut:
    """Training queries divided: ``survivors`` may be trained on; ``dropped`` are, or read like, test queries."""

    survivors: tuple[Query, ...]
    dropped: tuple[Query, ...]

    def judgements(self, judgements: Iterable[Judgement]) -> Iterator[Judgement]:
        """Those of these judgements that belong to a survivor."""
        allowed = {query.query_id for query in self.survivors}
        return (judgement for judgement in judgements if judgement.query_id in allowed)


def keep_out(train: Iterable[Query], test: Iterable[Query]) -> KeptOut:
    """Drop training queries whose id or normalised text is a test query's."""
    held = list(test)
    ids = {query.query_id for query in held}
    texts = {normalise(query.text) for query in held}
    survivors: list[Query] = []
    dropped: list[Query] = []
    for query in train:
        leaks = query.query_id in ids or normalise(query.text) in texts
        (dropped if leaks else survivors).append(query)
    return KeptOut(tuple(survivors), tuple(dropped))


def normalise(text: str) -> str:
    """Letters and digits alone: case, accents' encoding, punctuation and spacing do not tell two queries apart.

    A text with neither keeps its other characters.
    """
    plain = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return re.sub(r"[\W_]+", " ", plain).strip() or "".join(plain.split())


def refuse_test(training: Candidates | Iterable[Judgement], test_query_ids: Collection[str]) -> None:
    """The last guard before training.

    Raises:
        DataError: a test query is among these candidates or judgements.
    """
    test = set(test_query_ids)
    rows: Iterable[Candidate | Judgement] = training.rows() if isinstance(training, Candidates) else training
    leaked = sorted({row.query_id for row in rows if row.query_id in test})
    if leaked:
        some = ", ".join(map(repr, leaked[:3])) + (", …" if len(leaked) > 3 else "")
        fix = "pass the training queries through keep_out first"
        raise DataError(f"{len(leaked)} test queries are in the training data: {some}", where="candidates", fix=fix)
