"""What the tests of endpoints share: questions, an impatient endpoint, and the least of a teacher that asks."""

from __future__ import annotations

import numpy as np

from rerankdistill.cards import parse
from rerankdistill.scores.llm.endpoint import ChatEndpoint, EndpointOptions
from rerankdistill.scores.llm.model import Ask
from rerankdistill.scores.score import score
from rerankdistill.scores.store import open_store, read_store
from rerankdistill.types import Scale, View

ASKS = [Ask(f"Query: rain {n}. ", f"Passage: cloud {n}. Relevant?") for n in range(20)]


def connect(server, **options):
    """An endpoint that is impatient, unless told otherwise."""
    table = {"url": server.url, "backoff": 0.01, "retries": 2, "timeout": 10.0, "concurrency": 4, **options}
    return ChatEndpoint("tiny", parse(EndpointOptions, table, "test"), where="teacher 'tiny'")


class YesNo:
    """The least of a teacher that asks: the difference of two log-probabilities."""

    scale, view, needs_texts, partial = Scale.LOGIT, View.TEXT, True, True

    def __init__(self, model, batch_pairs=8):
        self.model, self.batch_pairs, self.spent = model, batch_pairs, model.spent

    @property
    def fingerprint(self):
        return self.model.fingerprint

    @property
    def usage(self):
        return self.model.usage

    def judge(self, groups):
        asks = [Ask(f"{group.query.text}\n", text) for group in groups for text in group.texts]
        rows = self.model.choose(asks, ["Yes", "No"])
        return np.split(rows[:, 0] - rows[:, 1], np.cumsum([len(group.doc_ids) for group in groups])[:-1])


def run(folder, model, groups, **options):
    """Score groups into a store, batch after batch of the same size; the store, read again."""
    teacher = YesNo(model, **options)
    with open_store(folder, "tiny", teacher) as store:
        score(store, teacher, groups, max_batch_pairs=teacher.batch_pairs)
        return store.folder


def kept(folder):
    return read_store(next(folder.iterdir()))
