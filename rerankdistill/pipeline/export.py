"""Export: a student in another library's form is held against itself in torch, on texts of the collection, and kept
only where it says nearly the same.

What is measured goes into the form's manifest, so that a server can take the fastest.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rerankdistill import artifacts
from rerankdistill.collections.work import Work
from rerankdistill.encoding import model_fingerprint, plan_batches
from rerankdistill.errors import UsageError
from rerankdistill.pipeline.held import Sample, Scored, Subject, Vectored, draw
from rerankdistill.pipeline.step import Notes, Quiet
from rerankdistill.students import export as forms
from rerankdistill.students.export import Form, Graph, graph_file
from rerankdistill.students.exported import FORMAT, KIND, WEIGHTS, Session, place
from rerankdistill.students.folder import Folder, look

CALIBRATION = 4096
"""Padded tokens of a batch that a graph is traced and smoothed with."""


class Limits(NamedTuple):
    """What a form may lose.

    Attributes:
        cosine: of vectors with those of torch: the mean must reach it. ``1 - cosine`` is what scores of a
            cross-encoder may be off on average, in standard deviations of the scores, times ten.
        ndcg: what may be lost of nDCG@10.
    """

    cosine: float
    ndcg: float

    @property
    def off(self) -> float:
        return 10 * (1 - self.cosine)


LIMITS: dict[Form, Limits] = {
    "onnx": Limits(0.9999, 0.001),
    "openvino": Limits(0.9999, 0.001),
    "onnx-fp16": Limits(0.999, 0.002),
    "onnx-int8": Limits(0.99, 0.005),
}


class Tried(NamedTuple):
    """One form. ``why``: what was lost too much of; empty: it was accepted and lies in ``folder``."""

    form: Form
    recipe: str
    figures: dict[str, float]
    why: str
    folder: Path


def export(
    student: Path, wanted: Sequence[Form], work: Work, texts: int = 256, threads: int = 0, notes: Notes | None = None
) -> list[Tried]:
    """Write a student in each of the forms.

    Args:
        work: whose texts and judgements decide.
        texts: documents that are compared.

    Raises:
        UsageError: the student is of a kind that is not exported.
        MissingDependency: a library that the form needs is not installed.
        DataError: there is no model in the folder.
    """
    notes, found = notes or Quiet(), look(student)
    sample = draw(work, texts)
    subject = _subject(found, sample)
    notes.say(f"torch: {subject.speed:,.1f} {subject.unit} a second, {sample.told}")
    tried = []
    with tempfile.TemporaryDirectory() as scratch:
        base = Path(scratch) / "fp32.onnx"
        graph = _graph(subject)
        forms.write_onnx(graph, base)
        for form in wanted:
            for made in _made(form, graph, base, Path(scratch)):
                one = _judge(form, made, subject, student, threads)
                if not one.why or made.last:
                    break
                notes.say(f"{form}, {made.recipe}: {one.why}")
            if not one.why:
                _keep(one, made.path, student, work)
            tried.append(one)
    return tried


def _subject(found: Folder, sample: Sample) -> Subject:
    if found.kind == "bi_encoder":
        return Vectored(found, sample)
    if found.kind == "cross_encoder":
        return Scored(found, sample)
    what = f"a student of kind {found.kind!r} is not exported"
    raise UsageError(what, where=str(found.path), fix="export a bi_encoder or a cross_encoder")


def _graph(subject: Subject) -> Graph:
    tokens = subject.tokens()
    rows = plan_batches(tokens.lengths, CALIBRATION, least=2)
    batches = [tokens.batch(each, "cpu") for each in rows]
    return Graph(subject.module(), tuple(tokens.columns), batches)


class _Made(NamedTuple):
    recipe: str
    path: Path
    last: bool


def _made(form: Form, graph: Graph, base: Path, scratch: Path) -> Iterator[_Made]:
    """A form's file, made in one way after the other until one is good enough: the plainest is the fastest."""
    if form == "onnx":
        yield _Made("fp32", base, True)
    elif form == "onnx-fp16":
        forms.write_fp16(base, scratch / "fp16.onnx")
        yield _Made("fp16", scratch / "fp16.onnx", True)
    elif form == "openvino":
        forms.write_openvino(base, scratch / graph_file(form))
        yield _Made("fp32", scratch / graph_file(form), True)
    else:
        forms.write_int8(base, scratch / "int8.onnx")
        yield _Made("a scale a channel", scratch / "int8.onnx", False)
        smooth = forms.smoothed(graph)
        forms.write_onnx(Graph(smooth.module, graph.inputs, graph.batches), scratch / "smooth.onnx")
        forms.write_int8(scratch / "smooth.onnx", scratch / "int8.onnx")
        yield _Made("smoothed", scratch / "int8.onnx", False)
        worst = sorted(range(len(smooth.errors)), key=lambda at: -smooth.errors[at])
        for share in (6, 3):
            some = worst[: max(1, len(worst) // share)]
            forms.write_int8(scratch / "smooth.onnx", scratch / "int8.onnx", some)
            yield _Made(f"smoothed, {len(some)} layers in float32", scratch / "int8.onnx", share == 3)


def _judge(form: Form, made: _Made, subject: Subject, student: Path, threads: int) -> Tried:
    figures = subject.compare(Session(made.path, form, threads))
    figures["bytes"] = made.path.stat().st_size + sum(p.stat().st_size for p in made.path.parent.glob("model.bin"))
    limits, faults = LIMITS[form], []
    if "cosine" in figures and figures["cosine"] < limits.cosine:
        faults.append(f"cosine {figures['cosine']:.5f}, where {limits.cosine} is asked for")
    if "off" in figures and figures["off"] > limits.off:
        faults.append(f"scores off by {figures['off']:.4f} of their spread, where {limits.off:.4g} is allowed")
    if figures.get("ndcg@10 lost", 0) > limits.ndcg:
        faults.append(f"{figures['ndcg@10 lost']:.4f} of nDCG@10 lost, where {limits.ndcg} is allowed")
    return Tried(form, made.recipe, figures, "; ".join(faults), place(student, form))


def _keep(one: Tried, path: Path, student: Path, work: Work) -> None:
    inputs = {"student": model_fingerprint(str(student)), "docs": work.source.docs_fingerprint()}
    about: dict[str, Any] = {"form": one.form, "view": work.view.value}
    manifest = artifacts.plan(KIND, FORMAT, about, inputs)
    manifest.counts = {"recipe": one.recipe, **one.figures}
    one.folder.parent.mkdir(parents=True, exist_ok=True)
    with artifacts.write(one.folder, manifest) as staging:
        shutil.copyfile(path, staging / graph_file(one.form))
        if one.form == "openvino":  # a file called .bin would count among the student's own weights
            shutil.copyfile(path.with_suffix(".bin"), staging / WEIGHTS)
