"""The door of the room: have a teacher score what is not in its store yet."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from rerankdistill.contracts import Teacher
from rerankdistill.errors import DataError, RerankDistillWarning
from rerankdistill.scores.store import ScoreStore
from rerankdistill.types import Answer, FloatArray, Group

BATCH_PAIRS = 512
MAX_BATCH_PAIRS = 65_536
MIN_BATCH_PAIRS = 32
BATCH_SECONDS = 10.0


class Progress(Protocol):
    """What is told how far the work is; the command line draws it."""

    def start(self, total: int | None) -> None:
        """``total`` pairs will be reported, those that are skipped included; None where nobody counted them."""

    def advance(self, pairs: int, seconds_left: float | None) -> None:
        """``pairs`` more are done; the rest takes about ``seconds_left`` (None while nothing has been measured)."""


class Counts(NamedTuple):
    """What :func:`score` did, in pairs. ``unanswered``: of those scored, the ones without an answer."""

    scored: int
    skipped: int
    unanswered: int
    seconds: float


def score(
    store: ScoreStore,
    teacher: Teacher,
    groups: Iterable[Group],
    progress: Progress | None = None,
    *,
    total: int | None = None,
    batch_pairs: int | None = None,
    max_batch_pairs: int = MAX_BATCH_PAIRS,
    batch_seconds: float = BATCH_SECONDS,
) -> Counts:
    """Score every pair of ``groups`` that the store lacks; each batch is on the disk before the next is begun.

    A batch begins at ``batch_pairs`` (None: what the teacher asks for, else 512) and is doubled or halved until it
    takes about ``batch_seconds``: that is what a kill costs at most. What a failed batch has cost is recorded, too.
    Groups are read once, as a stream.

    Args:
        total: the pairs in ``groups``, for the estimate; counted here where ``groups`` is a list or tuple.

    Raises:
        DataError: the teacher gave NaN, infinity, the wrong number of scores, or not the details that it keeps; names
            the query and the document.
        ArtifactError: the disk is full. All earlier batches are kept in either case.
    """
    if store.fingerprint != teacher.fingerprint:
        raise ValueError("the store is another teacher's")
    if total is None and isinstance(groups, list | tuple):
        total = sum(len(group.doc_ids) for group in groups)
    if hasattr(teacher, "spent"):
        teacher.spent(dict(store.usage))
    pace = _Pace(total, progress)
    size = min(batch_pairs or getattr(teacher, "batch_pairs", BATCH_PAIRS), max_batch_pairs)
    before = dict(getattr(teacher, "usage", {}))
    unanswered, first_unanswered = 0, ""
    batches = _Batches(store, groups)
    while batch := batches.take(size):
        began = time.perf_counter()
        try:
            said = teacher.judge(batch)
            seconds = time.perf_counter() - began
            answers = [each.scores if isinstance(each, Answer) else each for each in said]
            gaps, example = _check(batch, answers, bool(getattr(teacher, "partial", False)))
            _check_kept(batch, said, store.keeps)
        except BaseException:  # what the batch has cost is spent all the same
            store.charge(_grown(before, dict(getattr(teacher, "usage", {}))))
            raise
        unanswered, first_unanswered = unanswered + gaps, first_unanswered or example
        now = dict(getattr(teacher, "usage", {}))
        store.append(list(zip(batch, said, strict=True)), seconds, _grown(before, now))
        before = now
        pace.scored(sum(len(answer) for answer in answers), batches.skipped, seconds)
        if pace.batches > 1:  # the first may have loaded a model
            size = _resize(size, seconds, batch_seconds, max_batch_pairs)
    pace.finish(batches.skipped)
    store.compact()
    if unanswered:
        message = f"the teacher has no score for {unanswered} of {pace.done} pairs (the first: {first_unanswered})"
        warnings.warn(message, RerankDistillWarning, stacklevel=2)
    if pace.done > 1 and store.bounds is not None and store.bounds[0] == store.bounds[1]:
        message = f"every one of the teacher's {len(store)} scores is {store.bounds[0]:g}: it teaches nothing"
        warnings.warn(message, RerankDistillWarning, stacklevel=2)
    return Counts(pace.done, batches.skipped, unanswered, round(pace.seconds, 3))


def estimate(store: ScoreStore, missing: int) -> float | None:
    """The seconds that ``missing`` pairs will take, by what this teacher took for those that are here; None before
    its first batch."""
    rate = store.pairs_per_second
    return missing / rate if rate else None


class _Batches:
    """Cuts a stream of groups into batches of missing pairs; a long list is cut, for each batch is saved whole."""

    def __init__(self, store: ScoreStore, groups: Iterable[Group]) -> None:
        self.skipped = 0
        self._store, self._groups = store, iter(groups)
        self._rest: Group | None = None

    def take(self, size: int) -> list[Group]:
        """Groups with ``size`` missing pairs, fewer at the end of the stream."""
        batch: list[Group] = []
        room = size
        for group in self._stream():
            most = None if self._store.whole else room
            batch.append(_cut(group, slice(0, most)))
            self._rest = _cut(group, slice(most, None)) if most is not None and len(group.doc_ids) > most else None
            room -= len(batch[-1].doc_ids)
            if room <= 0:
                break
        return batch

    def _stream(self) -> Iterator[Group]:
        if self._rest:
            yield self._rest
        for group in self._groups:
            wanted = next(self._store.missing([group]), None)
            self.skipped += len(group.doc_ids) - (len(wanted.doc_ids) if wanted else 0)
            if wanted:
                yield wanted


class _Pace:
    """Counts pairs and seconds, and says what is left; by the first batch only until there are others."""

    def __init__(self, total: int | None, progress: Progress | None) -> None:
        self.done, self.seconds, self.batches = 0, 0.0, 0
        self._total, self._progress, self._told = total, progress, 0
        self._first = (0, 0.0)
        if progress:
            progress.start(total)

    def scored(self, pairs: int, skipped: int, seconds: float) -> None:
        self.done, self.seconds, self.batches = self.done + pairs, self.seconds + seconds, self.batches + 1
        if self.batches == 1:
            self._first = (pairs, seconds)
        first_pairs, first_seconds = self._first if self.batches > 1 else (0, 0.0)
        left = None
        if self._total is not None and self.done > first_pairs:
            each = (self.seconds - first_seconds) / (self.done - first_pairs)
            left = max(self._total - self.done - skipped, 0) * each
        self._tell(skipped, left)

    def finish(self, skipped: int) -> None:
        self._tell(skipped, 0.0)

    def _tell(self, skipped: int, left: float | None) -> None:
        if self._progress:
            self._progress.advance(self.done + skipped - self._told, left)
            self._told = self.done + skipped


def _grown(before: Mapping[str, float], now: Mapping[str, float]) -> dict[str, float]:
    """What the counters of a teacher grew by."""
    return {name: value - before.get(name, 0) for name, value in now.items() if value != before.get(name, 0)}


def _cut(group: Group, rows: slice) -> Group:
    return Group(group.query, group.doc_ids[rows], group.texts[rows])


def _resize(size: int, seconds: float, wanted: float, most: int) -> int:
    if seconds < wanted / 2:
        return min(size * 2, most)
    return max(size // 2, min(MIN_BATCH_PAIRS, size)) if seconds > wanted * 2 else size


def _check(batch: list[Group], answers: list[FloatArray], partial: bool) -> tuple[int, str]:
    """The number of pairs without an answer, and the first of them. Raises DataError; see :func:`score`."""
    if len(answers) != len(batch):
        raise DataError(f"the teacher answered {len(answers)} groups of {len(batch)}")
    gaps, example = 0, ""
    for group, answer in zip(batch, answers, strict=True):
        if len(answer) != len(group.doc_ids):
            what = f"the teacher gave {len(answer)} scores for {len(group.doc_ids)} documents"
            raise DataError(what, where=f"query {group.query.query_id!r}")
        odd = np.flatnonzero(~np.isfinite(answer))
        if not len(odd):
            continue
        pair = f"query {group.query.query_id!r}, document {group.doc_ids[odd[0]]!r}"
        if not partial or np.isinf(answer).any():
            fix = "look at these two texts; a lower precision may overflow: try dtype = 'float32' in the teacher's card"
            raise DataError(f"the teacher's score is {answer[odd[0]]}", where=pair, fix=fix)
        gaps, example = gaps + len(odd), example or pair
    return gaps, example


def _check_kept(batch: list[Group], said: Sequence[FloatArray | Answer], keeps: Sequence[str]) -> None:
    """Raises DataError where an answer lacks what the store keeps of each document."""
    for group, answer in zip(batch, said, strict=True):
        for name in keeps:
            kept = getattr(answer, name) if isinstance(answer, Answer) else ()
            if len(kept) != len(group.doc_ids):
                what = f"the teacher gave {len(kept)} {name} for {len(group.doc_ids)} documents"
                raise DataError(what, where=f"query {group.query.query_id!r}")
