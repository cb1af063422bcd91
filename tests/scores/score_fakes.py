"""Teachers and groups for the tests of the score store; light on purpose, for processes that are killed."""

from __future__ import annotations

import os
import time
from hashlib import blake2b
from pathlib import Path

import numpy as np

from rerankdistill.types import Group, Query, Scale, View


def value(query: str, doc: str) -> float:
    """A score that depends on the two texts alone."""
    number = int.from_bytes(blake2b(f"{query}|{doc}".encode(), digest_size=4).digest(), "little")
    return float(np.float32(number / 2**32 * 20 - 10))


class FakeTeacher:
    """Scores by hash. Notes every pair that it is asked for in a side file, one line a call, before it answers."""

    scale, view, needs_texts = Scale.LOGIT, View.TEXT, True

    def __init__(self, side: Path | None = None, sleep: float = 0.0, fingerprint: str = "0123456789abcdef") -> None:
        self.side, self.sleep, self.fingerprint = side, sleep, fingerprint
        self.calls: list[int] = []

    def judge(self, groups):
        pairs = sum(len(group.doc_ids) for group in groups)
        self.calls.append(pairs)
        if self.side:
            with self.side.open("ab", buffering=0) as file:
                os.write(file.fileno(), f"{pairs}\n".encode())
        time.sleep(self.sleep)
        return [np.array([value(g.query.text, text) for text in g.texts], np.float32) for g in groups]


def make_groups(queries: int, docs: int, corpus: int = 400) -> list[Group]:
    found = []
    for number in range(queries):
        ids = [f"d{(number * 37 + step * 7) % corpus}" for step in range(docs)]
        found.append(Group(Query(f"q{number}", f"query {number}"), tuple(ids), tuple(f"text of {i}" for i in ids)))
    return found
