"""A teacher of whole lists that keeps details and traces and counts its costs; light, for processes that are killed."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
from score_fakes import value

from rerankdistill.types import Answer, Scale, View


class FakeListTeacher:
    """What it says of a document depends on the list and its place. Each list that it is asked for is a line in a side
    file; a list costs a token a document and one request."""

    scale, view, needs_texts, partial = Scale.RANK, View.TEXT, True, True
    unit, keeps = "list", ("details", "traces")

    def __init__(self, side: Path | None = None, sleep: float = 0.0, fingerprint: str = "fedcba9876543210") -> None:
        self.side, self.sleep, self.fingerprint = side, sleep, fingerprint
        self.asked: list[tuple[str, ...]] = []
        self.told: dict[str, float] | None = None
        self.usage: dict[str, float] = {"tokens": 0, "requests": 0}

    def spent(self, usage):
        self.told = usage

    def judge(self, groups):
        if self.side:
            with self.side.open("ab", buffering=0) as file:
                os.write(file.fileno(), b"".join(f"{len(group.doc_ids)}\n".encode() for group in groups))
        self.asked += [group.doc_ids for group in groups]
        time.sleep(self.sleep)
        self.usage["tokens"] += sum(len(group.doc_ids) for group in groups)
        self.usage["requests"] += len(groups)
        return [said(group) for group in groups]


def said(group) -> Answer:
    whole = "|".join((group.query.text, *group.texts))
    scores = np.array([value(whole, f"{at} {text}") for at, text in enumerate(group.texts)], np.float32)
    details = tuple(scores - score for score in scores)
    for at, row in enumerate(details):
        row[at] = np.nan
    return Answer(scores, details, tuple(f"I thought of {text}. ünï\n" for text in group.texts))
