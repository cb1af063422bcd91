"""A language model's grade of a document, as the expected value over the tokens of the labels.

The model is asked once for a grade of 0 to 3, TREC's scale; its logits of the four label tokens, softmaxed among
themselves, are the probabilities of the grades, and the score is their mean gain: finer than the grade it would write
(expected relevance: Zhuang et al., Beyond Yes and No, arXiv 2310.14122). Graded labels to train on: BiXSE, UMBRELA
(arXiv 2406.06519).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np
from pydantic import Field, model_validator

from rerankdistill.scores.llm.pointwise import Pointwise, PromptOptions, answers
from rerankdistill.scores.llm.prompts import continued
from rerankdistill.types import Answer, Group, Scale


class GradedOptions(PromptOptions):
    """The labels and what they are worth.

    Attributes:
        labels: what the model may reply; the first token of each is read, and they must differ in it. A space is put
            before them where the prompt's answer ends without one.
        gains: the grade that each label stands for.
    """

    template: str = "graded"
    labels: tuple[str, ...] = Field(default=("0", "1", "2", "3"), min_length=2)
    gains: tuple[float, ...] = (0.0, 1.0, 2.0, 3.0)

    @model_validator(mode="after")
    def _fit(self) -> Self:
        if len(self.labels) != len(self.gains):
            raise ValueError(f"{len(self.labels)} labels and {len(self.gains)} gains: one gain a label is needed")
        if len({label.strip() for label in self.labels}) < len(self.labels):
            raise ValueError("labels: each must be another")
        if not all(0 <= gain < float("inf") for gain in self.gains):
            raise ValueError("gains: grades are zero or more")
        return self


class Kind(Pointwise[GradedOptions]):
    """A grading teacher. ``details`` of a document: the probabilities of the labels, in their order."""

    Options = GradedOptions
    name = "graded"
    scale = Scale.GRADE

    def judge(self, groups: Sequence[Group]) -> list[Answer]:
        options = [continued(self.prompt.answer, label) for label in self.options.labels]
        logits = self.rate(self.asks(*self.texts(groups)), options).astype(np.float64)
        weights = np.exp(logits - logits.max(axis=1, keepdims=True, initial=-np.inf))
        probabilities = weights / weights.sum(axis=1, keepdims=True)
        return answers(groups, probabilities @ np.array(self.options.gains), probabilities)
