"""A language model's yes or no to "does this passage answer the query?", read from two logits at one position.

The score is the log-odds, logit(yes) - logit(no): MonoT5's reading (Nogueira et al., arXiv 2003.06713) for a causal
model, as Qwen3-Reranker was trained to be read (arXiv 2506.05176). Both logits are kept for losses on the two of them.

A model asked without being trained for it leans to yes for some passages, whatever the query. ``calibrate = "passage"``
subtracts what it says of the passage for queries without content (contextual calibration, Zhao et al., arXiv
2102.09690): what is left is what the query has to do with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import Literal

import numpy as np
from pydantic import Field

from rerankdistill.scores.llm.pointwise import Pointwise, PromptOptions, TwoWords, answers, sigmoid
from rerankdistill.scores.llm.prompts import continued
from rerankdistill.types import Answer, FloatArray, Group, Scale

SCALES = {"logit": Scale.LOGIT, "logprob": Scale.LOGPROB, "probability": Scale.PROBABILITY}


class CausalOptions(PromptOptions):
    """What is asked and how two logits become one score.

    Attributes:
        options: the words for relevant and for not; the first token of each is read. A space is put before them where
            the prompt's answer ends without one.
        output: ``logit``: the log-odds; ``logprob``, ``probability``: of the first word against the second.
        calibrate: ``passage``: subtract each passage's mean log-odds for the queries in ``content_free``, computed once
            for each distinct passage.
        content_free: queries that ask nothing.
    """

    options: TwoWords = ("yes", "no")
    output: Literal["logit", "logprob", "probability"] = "logit"
    calibrate: Literal["none", "passage"] = "none"
    content_free: tuple[str, ...] = Field(default=("N/A", "[MASK]", ""), min_length=1)


class Kind(Pointwise[CausalOptions]):
    """A yes/no teacher. ``details`` of a document: the two logits (log-probabilities from an endpoint), uncalibrated,
    that of the word for relevant first."""

    Options = CausalOptions
    name = "causal"
    details_are = "logits"

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]
        self.scale = self._scale(self.options)
        self._biases: dict[bytes, float] = {}

    @classmethod
    def _scale(cls, options: CausalOptions) -> Scale:
        return SCALES[options.output]

    def judge(self, groups: Sequence[Group]) -> list[Answer]:
        queries, docs = self.texts(groups)
        logits = self._logits(queries, docs)
        margins = logits[:, 0] - logits[:, 1]
        if self.options.calibrate == "passage":
            margins = margins - self._bias(docs)
        return answers(groups, self._score(margins), logits)

    def _logits(self, queries: Sequence[str], docs: Sequence[str]) -> FloatArray:
        answer = self.prompt.answer
        return self.rate(self.asks(queries, docs), [continued(answer, option) for option in self.options.options])

    def _score(self, margins: FloatArray) -> FloatArray:
        if self.options.output == "probability":
            return sigmoid(margins)
        if self.options.output == "logprob":
            return (-np.logaddexp(0, -margins.astype(np.float64))).astype(np.float32)
        return margins

    def _bias(self, docs: Sequence[str]) -> FloatArray:
        """``[len(docs)]`` each passage's mean log-odds for queries without content."""
        marks = [blake2b(doc.encode("utf-8", "surrogatepass"), digest_size=16).digest() for doc in docs]
        new = {mark: doc for mark, doc in zip(marks, docs, strict=True) if mark not in self._biases}
        if new:
            free = self.fit(self.options.content_free, self.lengths.query)
            logits = self._logits([query for query in free for _ in new], list(new.values()) * len(free))
            means = (logits[:, 0] - logits[:, 1]).reshape(len(free), len(new)).mean(axis=0)
            self._biases.update(zip(new, means.tolist(), strict=True))
            self.count("calibrated_passages", len(new))
        return np.array([self._biases[mark] for mark in marks], np.float32)
