"""Networks that onnxruntime or OpenVINO computes: the forms of a student that ``rerankdistill export`` accepted.

Which is the fastest hangs on the machine that serves, so they race there, against torch, when a student is opened.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from rerankdistill import devices
from rerankdistill.encoding import Tokens, map_batches
from rerankdistill.errors import RerankDistillError
from rerankdistill.serving.batcher import Network
from rerankdistill.students.export import Form
from rerankdistill.students.exported import BUDGET, CPU, Session, exports, open_session
from rerankdistill.types import FloatArray

LOG = logging.getLogger("rerankdistill.serving")
COURSE = tuple("the quick search for what people ask and never find again " * count for count in (1, 1, 2, 3, 5, 8, 12))
"""Texts of the lengths that documents have."""
ROUNDS = 3


class SessionNetwork:
    """``[n, d]`` vectors, or ``[n]`` logits: what the form's graph gives."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def __call__(self, tokens: Tokens) -> FloatArray:
        return np.stack(map_batches(tokens, self._session, CPU, BUDGET)).astype(np.float32)


def fastest(student: Path, device: devices.Device, torch: Network, course: Tokens) -> tuple[Form | None, Network]:
    """The fastest of torch and a student's accepted forms; on a GPU torch, and None for its form.

    A form that cannot be opened is told in the log and takes no part.
    """
    forms = exports(student) if device.name == "cpu" else {}
    runners: dict[Form | None, Network] = {None: torch}
    for form in forms:
        try:
            runners[form] = SessionNetwork(open_session(student, form))
        except RerankDistillError as error:
            LOG.warning("form not used", extra={"about": {"form": form, "why": error.what}})
    if len(runners) == 1:
        return None, torch
    first = min(seconds := race(runners, course), key=seconds.__getitem__)
    LOG.info("forms", extra={"about": {str(form or "torch"): round(spent, 4) for form, spent in seconds.items()}})
    return first, runners[first]


def race(runners: Mapping[Form | None, Network], course: Tokens) -> dict[Form | None, float]:
    """The seconds that each takes for the same texts, the best of several rounds in which they take turns."""
    best = dict.fromkeys(runners, float("inf"))
    for _ in range(ROUNDS + 1):  # the first one warms up, and is seldom the best
        for form, run in runners.items():
            began = time.perf_counter()
            run(course)
            best[form] = min(best[form], time.perf_counter() - began)
    return best
