"""Networks that onnxruntime or OpenVINO computes: the forms of a student that ``rerankdistill export`` accepted.

Which is the fastest hangs on the machine that serves, so they race there, against torch, when a student is opened.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple, TypeVar

import numpy as np

from rerankdistill import devices
from rerankdistill.encoding import Tokens, map_batches
from rerankdistill.errors import RerankDistillError
from rerankdistill.serving.batcher import Network
from rerankdistill.serving.torch_network import called
from rerankdistill.students.exported import CPU, Session, exports, open_session
from rerankdistill.types import FloatArray

LOG = logging.getLogger("rerankdistill.serving")
Name = TypeVar("Name")
COURSE = tuple("the quick search for what people ask and never find again " * count for count in (1, 1, 2, 3, 5, 8, 12))
"""Texts of the lengths that documents have."""
ROUNDS = 5
BUDGET = 4096
"""Padded tokens of one call."""
LONG = 64
"""Tokens from which on a text alone is computed as a long one."""
SLACK = 1.15
"""Texts up to so many times longer than the shortest of a batch are padded to each other."""


class SessionNetwork:
    """``[n, d]`` vectors, or ``[n]`` logits: what the form's graph gives.

    Args:
        session: the graph, with all threads.
        single: the same with one, which several may ask at once; its weights lie in memory a second time.
    """

    def __init__(self, session: Session, single: Session | None = None) -> None:
        self._session, self._single = session, single or session

    def __call__(self, tokens: Tokens, threads: int = 0) -> FloatArray:
        session = self._single if threads == 1 else self._session
        rows = map_batches(tokens, session, CPU, BUDGET, batches=alike(tokens.lengths))
        return np.stack(rows).astype(np.float32)


class Way(NamedTuple):
    """A network, and how many threads it gets."""

    network: Network
    threads: int

    def __call__(self, tokens: Tokens, threads: int = 0) -> FloatArray:
        return self.network(tokens, min(threads, self.threads) or self.threads)


class Sized:
    """A network for a short text alone, one for a long one, and one for many together, of the same precision."""

    def __init__(self, short: Network, long: Network, many: Network) -> None:
        self._short, self._long, self.many = short, long, many

    def __call__(self, tokens: Tokens, threads: int = 0) -> FloatArray:
        if len(tokens.lengths) > 1:
            return self.many(tokens, threads)
        return (self._short if tokens.lengths[0] < LONG else self._long)(tokens, threads)


def alike(lengths: Sequence[int]) -> list[list[int]]:
    """Texts in batches within which none is much longer than another, the longest first."""
    batches: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        longest = lengths[batches[-1][0]] if batches else 0
        if not batches or longest > SLACK * lengths[row] or longest * (len(batches[-1]) + 1) > BUDGET:
            batches.append([])
        batches[-1].append(row)
    return batches


def fastest(
    student: Path, device: devices.Device, torch: Network, course: Tokens, threads: int = 0
) -> tuple[str, Network]:
    """The fastest of torch and a student's accepted forms, and what it is called; on a GPU torch.

    Texts are computed by one thread, as under load. A text alone is by all or by one, since to wake a core takes
    time as well, and by another form if that is faster and of the same precision. A form that cannot be opened is told
    in the log and takes no part.
    """
    own = called(device)
    if device.name != "cpu":
        return own, torch
    before = devices.threads()
    runners, threads = {own: torch} | _forms(student, threads), threads or before
    many = race({(name, 1): Way(run, 1) for name, run in runners.items()}, course)
    first, _ = min(many, key=many.__getitem__)
    ways = {
        (name, count): Way(run, count)
        for name, run in runners.items()
        if _bits(name) == _bits(first)
        for count in sorted({1, threads})
    }
    sizes = course.lengths
    texts = [only(course, row) for row in (sizes.index(min(sizes)), sizes.index(max(sizes)))]
    short, long = (race({each: led(way) for each, way in ways.items()}, text) for text in texts)
    quick = [min(times, key=times.__getitem__) for times in (short, long)]
    devices.take_threads(before)
    LOG.info("forms", extra={"about": {"many": _told(many), "short": _told(short), "long": _told(long)}})
    others = dict.fromkeys(name for name, _ in quick if name != first)
    label = f"{first}, one text by {' or '.join(others)}" if others else first
    return label, Sized(ways[quick[0]], ways[quick[1]], runners[first])


def _forms(student: Path, threads: int) -> dict[str, Network]:
    found: dict[str, Network] = {}
    for form in exports(student):
        try:
            session = open_session(student, form, threads)
            found[form] = SessionNetwork(session, open_session(student, form, 1) if session.threads > 1 else None)
        except RerankDistillError as error:
            LOG.warning("form not used", extra={"about": {"form": form, "why": error.what}})
    return found


def _bits(name: str) -> str:
    """The precision of a form, or of torch."""
    return "float32" if name in ("onnx", "openvino") or name.startswith("torch float32") else name


def _told(seconds: Mapping[tuple[str, int], float]) -> dict[str, float]:
    return {f"{name} x {count}": round(spent, 4) for (name, count), spent in seconds.items()}


def only(tokens: Tokens, row: int = 0) -> Tokens:
    """One of the texts alone."""
    return Tokens({name: column[row : row + 1] for name, column in tokens.columns.items()}, tokens.pads)


def led(run: Network) -> Network:
    """The same, called where several cores compute together; texts that are asked for meanwhile take turns with it."""
    return lambda tokens, threads=0: devices.leader().submit(run, tokens, threads).result()


def race(runners: Mapping[Name, Network], course: Tokens) -> dict[Name, float]:
    """The seconds that each takes for the same texts: the median of several rounds in which they take turns, so that
    one which is fast only while the other cores happen to be idle does not win by luck."""
    took: dict[Name, list[float]] = {name: [] for name in runners}
    for _ in range(ROUNDS + 1):
        for name, run in runners.items():
            began = time.perf_counter()
            run(course)
            took[name].append(time.perf_counter() - began)
    return {name: median(each[1:]) for name, each in took.items()}  # the first one warmed up
