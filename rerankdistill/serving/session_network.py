"""Networks that onnxruntime or OpenVINO computes: the forms of a student that ``rerankdistill export`` accepted.

Which is the fastest hangs on the machine that serves, so they race there, against torch, when a student is opened.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from rerankdistill import devices
from rerankdistill.encoding import Tokens, map_batches
from rerankdistill.errors import RerankDistillError
from rerankdistill.serving.batcher import Network
from rerankdistill.serving.torch_network import called
from rerankdistill.students.exported import CPU, Session, exports, open_session
from rerankdistill.types import FloatArray

LOG = logging.getLogger("rerankdistill.serving")
COURSE = tuple("the quick search for what people ask and never find again " * count for count in (1, 1, 2, 3, 5, 8, 12))
"""Texts of the lengths that documents have."""
ROUNDS = 3
BUDGET = 4096
"""Padded tokens of one call."""
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


class Both:
    """One network for a text alone, another for many together, both of the same precision."""

    def __init__(self, alone: Network, many: Network) -> None:
        self._alone, self._many = alone, many

    def __call__(self, tokens: Tokens, threads: int = 0) -> FloatArray:
        return (self._alone if len(tokens.lengths) == 1 else self._many)(tokens, threads)


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

    Texts are computed by one thread, as under load; a text alone by all, and by another form if that is faster and of
    the same precision. A form that cannot be opened is told in the log and takes no part.
    """
    own = called(device)
    runners = {own: torch} | (_forms(student, threads) if device.name == "cpu" else {})
    if len(runners) == 1:
        return own, torch
    threads = threads or devices.threads()
    many = race(runners, course, 1)
    first = min(many, key=many.__getitem__)
    equals = {name: run for name, run in runners.items() if _bits(name) == _bits(first)}
    alone = race(equals, one_of(course), threads)
    quick = min(alone, key=alone.__getitem__)
    devices.take_threads(threads)
    LOG.info("forms", extra={"about": {"many": _rounded(many), "alone": _rounded(alone)}})
    if quick == first:
        return first, runners[first]
    return f"{first}, one text by {quick}", Both(runners[quick], runners[first])


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


def _rounded(seconds: Mapping[str, float]) -> dict[str, float]:
    return {name: round(spent, 4) for name, spent in seconds.items()}


def one_of(tokens: Tokens) -> Tokens:
    """The first text alone."""
    return Tokens({name: column[:1] for name, column in tokens.columns.items()}, tokens.pads)


def race(runners: Mapping[str, Network], course: Tokens, threads: int) -> dict[str, float]:
    """The seconds that each takes for the same texts, the best of several rounds in which they take turns."""
    best = dict.fromkeys(runners, float("inf"))
    for _ in range(ROUNDS + 1):  # the first one warms up, and is seldom the best
        for name, run in runners.items():
            began = time.perf_counter()
            run(course, threads)
            best[name] = min(best[name], time.perf_counter() - began)
    return best
