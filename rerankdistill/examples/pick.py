"""Choose the documents of one training list from a query's complete one, the same way every time it is asked."""

from __future__ import annotations

import hashlib
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from rerankdistill.errors import UsageError
from rerankdistill.types import Example

Strategy = Literal["top", "random", "log_random", "top_and_random", "bottom", "single_relevant", "all_relevant"]
STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)


def pick(example: Example, n: int, strategy: Strategy = "random", seed: int = 0, epoch: int = 0) -> Example:
    """The example cut to ``n`` documents (all of them where it has fewer), the positive, if any, in column 0.

    The others follow from high teacher score to low, ties by ``doc_id``, unscored ones last:

    - ``top``: the highest;
    - ``random``: any, with equal chances;
    - ``log_random``: any, document of rank r with a chance in proportion to 1 / log2(1 + r);
    - ``top_and_random``: the highest half, and any of the rest;
    - ``bottom``: the lowest of those that have a score: found for the query, and no answer to it (Gecko's negatives);
    - ``single_relevant``: one document with a label above zero (another one each epoch, where there are several)
      becomes the positive, and the others have none;
    - ``all_relevant``: documents with a label above zero, up to half of the list (others each epoch, where there are
      more), and any of those without: for losses on several positives.

    Chance depends on (seed, epoch, query_id) and on nothing else: not on the order of examples or of documents.

    Raises:
        UsageError: n < 2 (a list of one teaches nothing) or an unknown strategy.
    """
    if n < 2:
        raise UsageError(f"a training list needs 2 documents or more, not {n}", fix="raise the number of documents")
    if strategy not in STRATEGIES:
        raise UsageError(f"no strategy is called {strategy!r}", fix=f"known: {', '.join(STRATEGIES)}")
    chance = generator(seed, epoch, example.query_id)
    ranked = ranking(example)
    positive = example.positive
    if strategy == "single_relevant":
        relevant = ranked[example.labels[ranked] > 0]
        if relevant.size:
            positive = int(chance.choice(relevant))
            ranked = ranked[example.labels[ranked] <= 0]
    others = ranked[ranked != positive]
    kept = np.empty(0, np.int64)
    if strategy == "all_relevant":
        relevant = others[example.labels[others] > 0]
        count = min(len(relevant), max(n // 2 - (positive >= 0), 0))
        kept = relevant[np.sort(chance.choice(len(relevant), count, replace=False))] if count else kept
        others = others[example.labels[others] <= 0]
    room = n - (positive >= 0) - len(kept)
    if strategy == "bottom" and len(known := others[~np.isnan(example.scores[others])]) >= room:
        others = known
    if len(others) > room:
        others = others[_choose(len(others), room, strategy, chance)]
    columns = np.concatenate([[positive], kept, others]) if positive >= 0 else np.concatenate([kept, others])
    return take(example, columns.astype(np.int64), 0 if positive >= 0 else -1)


def ranking(example: Example) -> NDArray[np.int64]:
    """Columns from high teacher score to low, ties by ``doc_id``, unscored documents last."""
    scores = np.where(np.isnan(example.scores), -np.inf, example.scores)
    return np.lexsort((np.asarray(example.doc_ids), -scores)).astype(np.int64)


def take(example: Example, columns: NDArray[np.int64], positive: int) -> Example:
    """The example with these columns alone, in this order."""
    return Example(
        example.query_id,
        example.query,
        tuple(example.doc_ids[column] for column in columns),
        example.scores[columns],
        example.labels[columns],
        positive,
        example.means,
        example.stds,
        tuple(example.masked[column] for column in columns) if example.masked else (),
        None if example.preferences is None else example.preferences[np.ix_(columns, columns)],
        None if example.logits is None else example.logits[columns],
    )


def generator(*key: object) -> np.random.Generator:
    """Chance that depends on these values alone, in every process and on every machine."""
    digest = hashlib.sha256("\x1f".join(str(part) for part in key).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "little"))


def _choose(count: int, room: int, strategy: Strategy, chance: np.random.Generator) -> NDArray[np.int64]:
    """``room`` of ``count`` ranks, ascending."""
    if strategy == "top":
        return np.arange(room)
    if strategy == "bottom":
        return np.arange(count - room, count)
    first = -(-room // 2) if strategy == "top_and_random" else 0
    rest = count - first
    odds = 1 / np.log2(2.0 + np.arange(rest)) if strategy == "log_random" else np.ones(rest)
    drawn = first + chance.choice(rest, room - first, replace=False, p=odds / odds.sum())
    return np.sort(np.concatenate([np.arange(first), drawn]))
