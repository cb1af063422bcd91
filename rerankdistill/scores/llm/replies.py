"""What the replies of an OpenAI-compatible endpoint say, read without trust: an odd field is a missing one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

NEVER = -1000.0
"""The log-probability of an option that a server without log-probabilities did not write: finite, and e to it is 0."""


def bare(text: str) -> str:
    """A token or an option without what its ways to be written differ in: spaces and capitals."""
    return text.strip().casefold()


THINKS, THOUGHT = "<think>", "</think>"


def written(reply: Mapping[str, Any], begun: str = "") -> str:
    """The text of a reply; empty where it has none.

    Args:
        begun: how the answer began. Where it began to think, what a server took out of the text as reasoning is put
            back in front of it, with the mark that ends it once there is more than that.
    """
    try:
        message = reply["choices"][0]["message"]
        content, thought = message.get("content"), message.get("reasoning_content") or message.get("reasoning")
    except (KeyError, IndexError, TypeError, AttributeError):
        return ""
    text = content if isinstance(content, str) else ""
    if begun.rstrip().endswith(THINKS) and isinstance(thought, str):
        return f"{thought}{THOUGHT}{text}" if text.strip() else thought
    return text


def until(text: str, stop: Sequence[str]) -> str:
    """The text before the first of ``stop``."""
    return text[: min((at for each in stop if (at := text.find(each)) >= 0), default=len(text))]


def likeliest_tokens(reply: Mapping[str, Any]) -> list[tuple[str, float]] | None:
    """The likeliest first tokens of a reply and their log-probabilities; None where it tells none."""
    try:
        position = reply["choices"][0]["logprobs"]["content"][0]
        told = position.get("top_logprobs") or [position]
        return [(each["token"], float(each["logprob"])) for each in told]
    except (KeyError, IndexError, TypeError, ValueError, AttributeError):
        return None


def match(likeliest: Sequence[tuple[str, float]], marks: Sequence[str]) -> list[float]:
    """For each mark the logarithm of the sum over its ways to be written; NaN where there is none.

    A mark of several tokens is known by the token that it alone begins with.
    """
    found: list[list[float]] = [[] for _ in marks]
    begun: list[list[float]] = [[] for _ in marks]
    for token, logprob in likeliest:
        plain = bare(token)
        if plain in marks:
            found[marks.index(plain)].append(logprob)
        elif len(plain) > 1 and sum(mark.startswith(plain) for mark in marks) == 1:
            begun[next(n for n, mark in enumerate(marks) if mark.startswith(plain))].append(logprob)
    return [_sum(whole or part) for whole, part in zip(found, begun, strict=True)]


def _sum(logprobs: Sequence[float]) -> float:
    return max(float(np.logaddexp.reduce(np.array(logprobs))), NEVER) if logprobs else math.nan


def begins(text: str, marks: Sequence[str]) -> list[float]:
    """0 for the mark that the text begins with (the longest), :data:`NEVER` for the others; NaN where none does."""
    plain = bare(text.lstrip(" \t\r\n\"'*([`"))
    hits = [n for n, mark in enumerate(marks) if plain.startswith(mark) and not plain[len(mark) :][:1].isalnum()]
    if not hits:
        return [math.nan] * len(marks)
    best = max(hits, key=lambda n: len(marks[n]))
    return [0.0 if n == best else NEVER for n in range(len(marks))]


def span(told: Any, prompt: str, text: str) -> list[float] | None:
    """The log-probabilities of the tokens of ``text`` behind ``prompt`` in an echo; None where it is none.

    Tokens are laid against the text by their own characters, for what stands before it (a token that begins every
    text) shifts the offsets that a server gives.
    """
    try:
        tokens, logprobs = list(told["tokens"]), list(told["token_logprobs"])
        joined = "".join(tokens)
        start = joined.find(prompt + text)
        ends = np.cumsum([len(token) for token in tokens]).tolist()
        if start < 0:  # tokens that are no whole characters
            offsets = list(told["text_offset"])
            start, ends = int(offsets[0 if prompt.startswith(tokens[0]) else 1]), [*offsets[1:], math.inf]
        begin, end = start + len(prompt), start + len(prompt) + len(text)
        rows = [n for n, at in enumerate(ends) if begin < at and (ends[n - 1] if n else start) < end]
        values = [float(logprobs[row]) for row in rows if logprobs[row] is not None]
        return values or (None if text else [])
    except (KeyError, IndexError, TypeError, ValueError):
        return None
