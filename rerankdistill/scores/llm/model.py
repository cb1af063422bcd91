"""What a kind of teacher asks of a language model, whoever runs it: here (:mod:`local`) or behind an endpoint.

A question has a part that many of them share (an instruction and the query, or an instruction and the passage), which
comes first, so that it is computed once for all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from rerankdistill.types import FloatArray


class Ask(NamedTuple):
    """One question.

    Attributes:
        shared: the beginning of the user's message, alike in many questions.
        own: the rest of the user's message.
        answer: how the model's answer begins; it goes on from there.
        system: the system's message; left out where it is empty.
    """

    shared: str
    own: str = ""
    answer: str = ""
    system: str = ""

    @property
    def user(self) -> str:
        """The user's whole message."""
        return self.shared + self.own


class Sampling(NamedTuple):
    """How what is written is drawn: ``temperature`` 0 takes the likeliest token each time; above it, ``seed`` decides
    (with the questions of the batch, so that the same ones asked together are answered alike)."""

    temperature: float = 0.0
    seed: int = 0


GREEDY = Sampling()


class LanguageModel(Protocol):
    """A causal language model that was trained to follow instructions, or a plain one."""

    usage: Mapping[str, float]
    """Counters that grow: ``prompt_tokens``, ``generated_tokens``, ``requests``, ``cost`` …, those that it knows."""

    @property
    def fingerprint(self) -> str:
        """Of the model, its revision and adapters, the dtype, the lengths, and how a question is laid out for it."""

    @property
    def exact(self) -> bool:
        """True where :meth:`choose` gives raw logits, false where it gives log-probabilities, NaN for an option that
        is not among the likeliest tokens."""

    def fit(self, text: str, limit: int | None) -> str:
        """The text cut to ``limit`` tokens (None: left as it is)."""

    def choose(self, asks: Sequence[Ask], options: Sequence[str]) -> FloatArray:
        """``[len(asks), len(options)]``: for each option, how the model rates its first token as the next one.

        Raises:
            CardError: two options begin with the same token.
        """

    def write(
        self, asks: Sequence[Ask], max_tokens: int, stop: Sequence[str] = (), how: Sampling = GREEDY
    ) -> list[str]:
        """What the model writes next, up to ``max_tokens`` tokens or the first of ``stop`` (left out)."""

    def likelihood(self, asks: Sequence[Ask], texts: Sequence[str]) -> FloatArray:
        """``[len(asks)]`` mean log-probability per token of a text as the answer to each question."""
