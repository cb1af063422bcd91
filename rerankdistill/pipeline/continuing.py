"""Training on from a student that is in use: few steps, and its own answers held against it where they are to be kept.

Whoever replaces a student changes what its users find (churn@10). Two things keep that low: beginning with the very
student, and, with ``keep``, its own scores as one more voice among the teachers: of a share ``keep`` of their weight.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomlkit

from rerankdistill.artifacts import write_text
from rerankdistill.cards import find_card, read_toml
from rerankdistill.errors import CardError, DataError, UsageError
from rerankdistill.pipeline.card import PipelineCard, StageCard, StudentCard
from rerankdistill.pipeline.deployed import ROW
from rerankdistill.scores.card import ABOUT_EXAMPLES, EnsembleCard, parse_teacher

FEWER, LEAST = 4, 10
"""A continuation takes a quarter of the last stage's steps, and so many at least."""


def continued(card: PipelineCard, deployed: Path, keep: float, root: Path) -> PipelineCard:
    """The pipeline whose student goes on from the one in use, which its report is held against.

    Raises:
        DataError: no student there.
        UsageError: it lies where the new student will, and would be lost.
        CardError: the pipeline has several students, or one of a kind that does not begin with a folder.
    """
    if not (deployed / "modules.json").is_file() and not (deployed / "config.json").is_file():
        raise DataError("there is no student here", where=str(deployed), fix="give the folder of a trained student")
    if (root / "students").resolve() in deployed.resolve().parents:
        fix = f"copy it first: cp -r {deployed} deployed, and give that"
        raise UsageError("the student in use would be overwritten by the new one", where="--continue", fix=fix)
    if len(card.students) != 1:
        raise CardError("only a pipeline with one student can be continued", where="students", fix="name another one")
    [(name, student)] = card.students.items()
    if student.kind not in ("bi_encoder", "query_tower"):
        what = f"a student of kind {student.kind!r} cannot be continued here"
        raise CardError(what, where=f"students.{name}", fix="continue a bi_encoder or a query_tower")
    own_reader = {"docs": ""} if student.kind == "query_tower" else {}  # the folder holds who reads its documents
    teacher = student.teacher or card.teacher
    on = student.model_copy(
        update={
            "options": {**student.options, **own_reader, "init": str(deployed.resolve())},
            "stages": (_shorter(student.stages[-1]),),
            "measure_before": True,
            "teacher": _with_deployed(teacher, student, deployed, keep, root) if keep else student.teacher,
        }
    )
    check = card.check.model_copy(update={"run": False})  # the teacher was looked at when it was first listened to
    targets = tuple(each.model_copy(update={"deployed": f"{ROW}{name} before"}) for each in card.evaluate)
    return card.model_copy(update={"students": {name: on}, "check": check, "evaluate": targets})


def _shorter(stage: StageCard) -> StageCard:
    steps = max(LEAST, stage.train.steps // FEWER)
    return stage.model_copy(update={"train": stage.train.model_copy(update={"steps": steps})})


def _with_deployed(teacher: str, student: StudentCard, deployed: Path, keep: float, root: Path) -> str:
    """The path of an ensemble's card: the teacher's members and the deployed student, which weighs ``keep`` of all."""
    path = find_card("teachers", teacher)
    card = parse_teacher(read_toml(path), str(path))
    members, weights, how = [str(path)], [1.0], "zscore"
    about: dict[str, Any] = {}
    if isinstance(card, EnsembleCard):
        members = [_place(path.parent, name) for name in card.members]
        weights = list(card.weights or [1.0] * len(members))
        how = "rrf" if card.combine == "rrf" else "zscore"
        about = card.model_dump(mode="json", include=set(ABOUT_EXAMPLES), exclude_unset=True)
    home = root / "cards"
    lengths = {"query": student.options.get("query_tokens", 64), "doc": student.options.get("doc_tokens", 256)}
    own = {"name": "deployed", "kind": "bi_encoder", "model": str(deployed.resolve()), "scale": "similarity"}
    _write(home / "deployed.toml", {**own, "lengths": lengths})
    shares = [round((1 - keep) * weight / sum(weights), 6) for weight in weights]
    whole = {**about, "name": f"{path.stem}-kept", "kind": "ensemble", "combine": how, "weights": [*shares, keep]}
    return str(_write(home / f"{path.stem}-kept.toml", {**whole, "members": [*members, str(home / "deployed.toml")]}))


def _place(base: Path, member: str) -> str:
    beside = base / member
    return str(beside.resolve()) if beside.suffix == ".toml" and beside.is_file() else member


def _write(path: Path, table: Mapping[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, tomlkit.dumps(table))
    return path.resolve()
