"""An exported student at work: texts become tokens as before, and another library multiplies.

A form lies in the student's folder with its manifest, which says what it lost and how fast it was; one that was made
from other weights than the student has now is not used.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from threading import local
from typing import TYPE_CHECKING, Any

import numpy as np

from rerankdistill import artifacts, devices
from rerankdistill.artifacts import Manifest, fingerprint
from rerankdistill.contracts import Role
from rerankdistill.encoding import Progress, TextEncoder, map_batches, model_fingerprint, tokenise
from rerankdistill.errors import ArtifactError, DamagedArtifact, MissingDependency
from rerankdistill.students.export import FORMS, INSTALL, INSTALL_OPENVINO, Form, graph_file
from rerankdistill.types import FloatArray

if TYPE_CHECKING:
    from torch import Tensor

KIND, FORMAT = "export", 1
WEIGHTS = "model.weights"
"""Where OpenVINO's weights lie, beside the graph."""
BUDGET = 16384
"""Padded tokens a batch."""
CPU = devices.Device("cpu", "float32")


class Session:
    """A graph that is ready to compute: tensors by name to ``[b, …]``."""

    def __init__(self, path: Path, form: Form, threads: int = 0) -> None:
        """``threads``: 0 takes as many as torch does in this process.

        Raises:
            MissingDependency: the library is not installed.
            DamagedArtifact: the file cannot be read.
        """
        self.threads = threads = threads or devices.threads()
        try:
            self._run = _openvino(path, threads) if form == "openvino" else _onnxruntime(path, threads)
        except ModuleNotFoundError as error:
            fix = INSTALL_OPENVINO if form == "openvino" else INSTALL
            raise MissingDependency(f"the form {form!r} needs {error.name!r}", where=str(path), fix=fix) from error
        except Exception as error:  # neither library's errors have a base of their own
            fix = "delete the folder and export again"
            first = str(error).strip().splitlines()[0]
            raise DamagedArtifact(f"the graph cannot be read: {first}", where=str(path), fix=fix) from error

    def __call__(self, features: dict[str, Tensor]) -> Tensor:
        import torch

        return torch.from_numpy(self._run({name: tensor.numpy() for name, tensor in features.items()}))


def _onnxruntime(path: Path, threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # the cores have other work
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = {each.name for each in session.get_inputs()}
    return lambda inputs: session.run(None, {name: inputs[name] for name in names})[0]


def _openvino(path: Path, threads: int) -> Any:
    """Each thread that asks has a request of its own: those of one are overwritten by the next. A graph of one thread
    is there as often as there are cores, so that these need not wait for each other."""
    import openvino

    streams = devices.cores() if threads == 1 else 1
    how = {
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": max(threads, streams),
        "NUM_STREAMS": streams,
    }
    weights = path.with_name(WEIGHTS) if path.with_name(WEIGHTS).is_file() else path.with_suffix(".bin")
    compiled = openvino.compile_model(openvino.Core().read_model(str(path), str(weights)), "CPU", how)
    names, own = {each.get_any_name() for each in compiled.inputs}, local()

    def run(inputs: dict[str, Any]) -> Any:
        if not hasattr(own, "request"):
            own.request = compiled.create_infer_request()
        return own.request.infer({name: inputs[name] for name in names})[0].copy()

    return run


class ExportedEncoder(TextEncoder):
    """A bi-encoder whose network is a :class:`Session`."""

    def __init__(self, encoder: TextEncoder, session: Session, mark: str) -> None:
        """``encoder``: the same student in torch, whose tokenizer, prompts and limits it takes."""
        vars(self).update(vars(encoder))
        self.session, self.device = session, CPU
        self.fingerprint = fingerprint(encoder.fingerprint, mark)

    def encode(self, texts: Sequence[str], role: Role, progress: Progress | None = None) -> FloatArray:
        """``[len(texts), dimension]`` float32."""
        if not texts:
            return np.empty((0, self.dimension), np.float32)
        rows = map_batches(self.tokens(texts, role), self.session, CPU, self.token_budget, progress)
        return np.stack(rows).astype(np.float32)


class ExportedScorer:
    """A cross-encoder whose network is a :class:`Session`; a :class:`rerankdistill.contracts.PairScorer`."""

    def __init__(self, tokenizer: Any, max_tokens: int, session: Session, mark: str) -> None:
        self.tokenizer, self.max_tokens, self.session = tokenizer, max_tokens, session
        self.fingerprint = fingerprint("exported", mark, max_tokens)

    def score(self, pairs: Sequence[tuple[str, str]]) -> FloatArray:
        """``[len(pairs)]`` logits."""
        if not pairs:
            return np.empty(0, np.float32)
        queries, docs = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        tokens = tokenise(self.tokenizer, queries, self.max_tokens, docs)
        return np.asarray(map_batches(tokens, self.session, CPU, BUDGET), np.float32)


def place(student: Path, form: Form) -> Path:
    """Where a form lies: ``onnx/fp32``, ``onnx/int8``, ``onnx/fp16``, ``openvino`` in the student's folder."""
    library, _, bits = form.partition("-")
    return student / library / (bits or "fp32") if library == "onnx" else student / library


def exports(student: Path) -> dict[Form, Manifest]:
    """The forms that belong to a student's weights as they are now."""
    found: dict[Form, Manifest] = {}
    mark = ""
    for form in FORMS:
        try:
            manifest = artifacts.read(place(student, form), KIND)
        except ArtifactError:
            continue
        mark = mark or model_fingerprint(str(student))
        if manifest.inputs.get("student") == mark and (place(student, form) / graph_file(form)).is_file():
            found[form] = manifest
    return found


def open_session(student: Path, form: Form, threads: int = 0) -> Session:
    """A form of a student, ready to compute. Raises as :class:`Session`, and MissingArtifact: it was not exported."""
    folder = place(student, form)
    artifacts.read(folder, KIND)
    return Session(folder / graph_file(form), form, threads)
