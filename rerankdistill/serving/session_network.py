"""Networks that onnxruntime or OpenVINO computes: a form of a student that ``rerankdistill export`` accepted."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from rerankdistill import devices
from rerankdistill.encoding import Tokens, map_batches
from rerankdistill.errors import RerankDistillError
from rerankdistill.students.export import Form
from rerankdistill.students.exported import BUDGET, CPU, Session, fastest, open_session
from rerankdistill.types import FloatArray

LOG = logging.getLogger("rerankdistill.serving")


class SessionNetwork:
    """``[n, d]`` vectors, or ``[n]`` logits: what the form's graph gives. ``form`` names it."""

    def __init__(self, session: Session, form: Form) -> None:
        self._session, self.form = session, form

    def __call__(self, tokens: Tokens) -> FloatArray:
        return np.stack(map_batches(tokens, self._session, CPU, BUDGET)).astype(np.float32)


def fastest_network(student: Path, device: devices.Device, threads: int = 0) -> SessionNetwork | None:
    """The fastest accepted form of a student, where it was faster than torch; None on a GPU, and where there is none.

    A form that cannot be opened is told in the log, and torch computes.
    """
    if device.name != "cpu":
        return None
    form = fastest(student)
    if form is None:
        return None
    try:
        return SessionNetwork(open_session(student, form, threads), form)
    except RerankDistillError as error:
        LOG.warning("form not used", extra={"about": {"form": form, "why": error.what}})
        return None
