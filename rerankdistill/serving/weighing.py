"""How much each of several fused engines counts: learnt from judged queries, and tried on those it was not learnt from.

Engines are asked as the server asks them. Weights are chosen by nDCG@10; what they are worth is told by
cross-validation: every query is measured with weights that were learnt without it, beside the fusion in which all count
alike.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from rerankdistill.contracts import Source
from rerankdistill.errors import DataError, UsageError
from rerankdistill.evaluation.compare import Comparison, compare_two
from rerankdistill.evaluation.measure import measure
from rerankdistill.runs.fuse import zscore_sum
from rerankdistill.runs.weights import Weights, learn_weights
from rerankdistill.serving.batcher import Batcher
from rerankdistill.serving.library import Library
from rerankdistill.serving.search import QUERY, Request, Searcher
from rerankdistill.serving.weights import write_weights
from rerankdistill.types import Judgement, Query, Run

MEASURE = "ndcg@10"
FOLDS, FEWEST = 5, 20
"""Parts of the cross-validation, and judged queries without which nothing is learnt."""
AT_ONCE = 32
"""Queries that are searched for together."""
BATCH, QUEUE = 4096, 1 << 20
SPLITS = ("dev", "train", "test")
"""Whose judgements are taken where nobody says: test's only where there are no others."""

Progress = Callable[[int], None]


@dataclass(frozen=True)
class Weighed:
    """What was learnt.

    Attributes:
        weights: of ``names``; all 1 where nothing better was found.
        alone: what each engine reads by itself.
        unseen: weights that were learnt without each query, against all alike.
        kept: whether they were written down: only what was better on queries that it was not learnt from.
    """

    engine: str
    names: tuple[str, ...]
    weights: Weights
    alone: tuple[float, ...]
    unseen: Comparison
    split: str
    kept: bool


def split_of(source: Source, wanted: str = "") -> str:
    """Whose judgements are learnt from. Raises DataError: the collection has none, or not these."""
    known = source.splits()
    for split in [wanted] if wanted else SPLITS:
        if split in known and any(source.judgements(split)):
            return split
    what = f"no judgements of {wanted!r}" if wanted else "no judgements"
    raise DataError(what, where=source.name, fix=f"its splits: {', '.join(known) or 'none'}")


class Judged(NamedTuple):
    """What is learnt from: queries with a relevant document, others being worth 0 to whatever weights; and all
    judgements of their ``split``."""

    collection: str
    split: str
    queries: list[Query]
    judgements: list[Judgement]

    @classmethod
    def of(cls, source: Source, wanted: str = "") -> Judged:
        """Of a collection's split, or of the first of :data:`SPLITS` that has judgements.

        Raises:
            DataError: it has none, or not these.
            UsageError: too few queries.
        """
        split = split_of(source, wanted)
        judgements = list(source.judgements(split))
        answered = {each.query_id for each in judgements if each.grade > 0}
        found = [query for query in source.queries(split) if query.query_id in answered and query.text.strip()]
        if len(found) < FEWEST:
            what = f"{len(found)} queries with a relevant document, and {FEWEST} are needed"
            fix = "judge more: 'rerankdistill judge', or the votes of the page"
            raise UsageError(what, where=source.name, fix=fix)
        return cls(source.name, split, found, judgements)


def weigh(
    root: Path, library: Library, engine: str, judged: Judged, cores: int, depth: int, progress: Progress
) -> Weighed:
    """Learn an engine's weights and write them into the work folder.

    Args:
        engine: ``bm25 + small``: names with a plus between them.
        judged: what is learnt from; its documents are those of the library.
        depth: of the lists that are fused.

    Raises:
        UsageError: an engine that fuses nothing, or that is not there.
    """
    batcher = Batcher(BATCH, QUEUE, cores)
    searcher = Searcher(library, batcher)
    try:
        rankers = searcher.engine(engine).rankers
        distinct = {ranker.name for ranker in rankers}
        if len(rankers) < 2 or len(distinct) < len(rankers) or ">" in engine:
            fix = "name different ones with a plus between them, as 'bm25 + small'; a re-ranker reads what they find"
            raise UsageError("there is nothing to weigh", where=engine, fix=fix)
        runs = asyncio.run(_searched(searcher, engine, judged.queries, depth, progress))
    finally:
        searcher.close()
        batcher.close()
    names = tuple(ranker.name for ranker in rankers)
    alike = (1.0,) * len(names)
    weights, unseen = learnt(runs, judged.judgements, [query.query_id for query in judged.queries], depth)
    kept = unseen.difference > 0 and weights != alike
    marks = {ranker.name: ranker.mark for ranker in rankers}
    about: dict[str, Any] = {"collection": judged.collection, "split": judged.split, "queries": len(judged.queries)}
    about |= {MEASURE: unseen.as_dict()}
    write_weights(root, " + ".join(names), {"weights": list(weights), "marks": marks, **about} if kept else None)
    alone = tuple(measure(run, judged.judgements, (MEASURE,)).means[MEASURE] for run in runs)
    return Weighed(engine, names, weights if kept else alike, alone, unseen, judged.split, kept)


def learnt(
    runs: Sequence[Run], judged: Sequence[Judgement], query_ids: Sequence[str], depth: int
) -> tuple[Weights, Comparison]:
    """The weights of all queries, and how those of the other folds do on each fold against all alike."""
    known: dict[Weights, dict[str, float]] = {}

    def values(weights: Weights) -> dict[str, float]:
        if weights not in known:
            known[weights] = measure(zscore_sum(runs, depth, weights), judged, (MEASURE,)).per_query[MEASURE]
        return known[weights]

    def best(some: Sequence[str]) -> Weights:
        return learn_weights(len(runs), lambda weights: sum(values(weights)[query_id] for query_id in some))

    unseen: dict[str, float] = {}
    for fold in range(FOLDS):
        held = set(query_ids[fold::FOLDS])
        chosen = values(best([query_id for query_id in query_ids if query_id not in held]))
        unseen |= {query_id: chosen[query_id] for query_id in held}
    alike = values((1.0,) * len(runs))
    return best(query_ids), compare_two(unseen, {query_id: alike[query_id] for query_id in unseen})


async def _searched(
    searcher: Searcher, engine: str, queries: Sequence[Query], depth: int, progress: Progress
) -> list[Run]:
    """What each of the engine's parts finds, as runs."""
    room = asyncio.Semaphore(AT_ONCE)

    async def one(query: Query) -> list[Run]:
        async with room:
            found = await searcher.runs(Request(query.text, engine, depth=depth))
            progress(1)
            return found

    answers = await asyncio.gather(*map(one, queries))
    ids = [query.query_id for query in queries]
    return [
        Run.from_hits(runs[0].name, {query_id: run.hits()[QUERY] for query_id, run in zip(ids, runs, strict=True)})
        for runs in zip(*answers, strict=True)
    ]
