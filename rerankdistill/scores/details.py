"""What a teacher said beside its scores: both logits, preferences, traces; read from a store when asked for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa

from rerankdistill.scores.columns import array
from rerankdistill.scores.log import KEPT
from rerankdistill.scores.pairs import KeyArray, pair_keys
from rerankdistill.types import Answer, FloatArray

Kept = dict[int, dict[str, object]]
"""By pair key, what was kept of it by column."""


def collect(tables: Iterable[pa.Table], keeps: Sequence[str], wanted: KeyArray) -> Kept:
    """What was kept of the ``wanted`` pairs in all these tables; the first row of a pair counts."""
    columns = [KEPT[name][0] for name in keeps]
    found: Kept = {}
    for table in tables:
        keys = pair_keys(array(table["query"]), array(table["doc"]))
        here = np.flatnonzero(np.isin(keys, wanted))
        some = table.select(columns).take(here)
        rows = zip(*(some[column].to_pylist() for column in columns), strict=True)
        for key, row in zip(keys[here].tolist(), rows, strict=True):
            found.setdefault(key, dict(zip(columns, row, strict=True)))
    return found


def answer(scores: FloatArray, keys: KeyArray, kept: Kept, keeps: Sequence[str]) -> Answer:
    """The answer for one group, whose pairs have these keys."""
    rows = [kept.get(key, {}) for key in keys.tolist()]
    numbers = tuple(np.asarray(row.get("details") or (), np.float32) for row in rows)
    traces = tuple(str(row.get("trace") or "") for row in rows)
    return Answer(scores, numbers if "details" in keeps else (), traces if "traces" in keeps else ())
