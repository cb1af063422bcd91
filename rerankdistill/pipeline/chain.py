"""Students that teach students: ``teacher = "student:NAME"`` is another student of the pipeline, once it is trained.

A teacher much larger than its student is followed better through one of a size between them (teacher assistants:
Mirzadeh et al. 2020, arXiv:1902.03393); LLM-R (Wang, Yang, Wei 2024, arXiv:2307.07164) goes from a language model to a
cross-encoder and from that to a bi-encoder. A student that is taught by its like learns from more than labels
(Furlanello et al. 2018, arXiv:1805.04770). Each seed learns from its own: student 2 from assistant 2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np

from rerankdistill.artifacts import fingerprint
from rerankdistill.cards import Card, parse
from rerankdistill.errors import CardError
from rerankdistill.kinds import open_kind
from rerankdistill.pipeline.card import PipelineCard, StudentCard
from rerankdistill.pipeline.step import Step
from rerankdistill.pipeline.vectors import Model
from rerankdistill.scores.card import Context, EnsembleCard, Placed, ScorerCard, TeacherCard, load_placed, load_teacher
from rerankdistill.types import FloatArray, Group, Scale, View

PREFIX = "student:"
ITSELF = "rerankdistill.pipeline.chain:Trained"
"""The kind of teacher that a student is which no other kind opens."""


def student_in(teacher: str) -> str | None:
    """The student that a teacher's name names; None for a card."""
    return teacher.removeprefix(PREFIX) if teacher.startswith(PREFIX) else None


def stem(teacher: str) -> str:
    """What a teacher is called in the names of files and steps."""
    return teacher.replace(":", "-") if student_in(teacher) else Path(teacher).stem


@dataclass(frozen=True)
class Cast:
    """Who is behind a teacher's name.

    Attributes:
        students: which of the members are students, by the names of their cards; the model of such a card is empty.
    """

    card: TeacherCard
    members: tuple[Placed, ...]
    students: Mapping[str, str] = field(default_factory=dict)


def cast(pipeline: PipelineCard, teacher: str, seed: int | None = None) -> Cast:
    """Read a teacher, which may be a student or have students among its members, without opening any model.

    Raises:
        CardError: mistakes in the cards; no such student; a student of a kind that cannot teach.
    """
    students: dict[str, str] = {}

    def known(name: str) -> ScorerCard | None:
        student = student_in(name)
        if student is None:
            return None
        card = scorer_card(pipeline, student, pipeline.seeds[0] if seed is None else seed)
        students[card.name] = student
        return card

    if own := known(teacher):
        return Cast(own, (Placed(own, Path()),), students)
    members = tuple(load_placed(teacher, known))
    return Cast(load_teacher(teacher), members, students)


def scorer_card(pipeline: PipelineCard, name: str, seed: int) -> ScorerCard:
    """The card of a student as a teacher, all but the folder that it lies in."""
    where = f"teacher {PREFIX}{name}"
    if name not in pipeline.students:
        near = get_close_matches(name, pipeline.students, 1)
        fix = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(pipeline.students)}"
        raise CardError(f"the pipeline has no student called {name!r}", where=where, fix=fix)
    student = pipeline.students[name]
    kind = open_kind("students", student.kind)
    options = parse(kind.Options, student.options, f"students.{name}.options")
    if hasattr(kind, "as_teacher"):
        about: dict[str, Any] = kind.as_teacher(options)
    elif kind.layout == "lists":
        scale = "logprob" if getattr(options, "output", None) == "logprob" else "logit"
        about = {"kind": ITSELF, "scale": scale, "options": {"kind": student.kind, "options": student.options}}
    else:
        raise CardError(f"a student of kind {student.kind!r} cannot teach", where=where, fix="name another one")
    return ScorerCard.model_validate({"name": f"{name}-seed{seed}", **about})


def teachers_of(student: StudentCard, pipeline: PipelineCard) -> tuple[str, ...]:
    """Every teacher whose scores a student learns from."""
    return tuple(name for name in (student.teacher or pipeline.teacher, student.preferences) if name)


def heard(pipeline: PipelineCard, student: StudentCard) -> list[str]:
    """The students that teach this one."""
    found: list[str] = []
    for teacher in teachers_of(student, pipeline):
        named: Sequence[str] = (teacher,)
        if not student_in(teacher) and isinstance(card := load_teacher(teacher), EnsembleCard):
            named = card.members
        found += [each for name in named if (each := student_in(name))]
    return found


def check_chain(pipeline: PipelineCard) -> None:
    """Raises CardError: a student is taught or refined by one that is not there, or, one over the other, taught by
    itself."""

    def follow(name: str, behind: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        if name in behind:
            yield (*behind[behind.index(name) :], name)
        elif name in pipeline.students:
            for teacher in heard(pipeline, pipeline.students[name]):
                yield from follow(teacher, (*behind, name))
        else:
            scorer_card(pipeline, name, 0)

    for name, student in pipeline.students.items():
        asked = [student.refine.teacher, *(each.teacher for each in student.refine.rounds)] if student.refine else []
        for known in filter(None, map(student_in, asked)):
            scorer_card(pipeline, known, 0)
        for circle in follow(name, ()):
            fix = "name a card as the teacher of one of them"
            raise CardError(f"students teach each other in a circle: {' → '.join(circle)}", where="students", fix=fix)


@dataclass(frozen=True)
class Graduate:
    """A student that will have been trained when it is asked: the step that trains it, and, where it compares vectors,
    the model that it is."""

    step: Step
    model: Model | None


class School:
    """The students of a pipeline, each trained once with each seed however many it teaches."""

    def __init__(self, train: Callable[[str, int], Graduate]) -> None:
        self._train = train
        self._found: dict[tuple[str, int], Graduate] = {}

    def graduate(self, name: str, seed: int) -> Graduate:
        if (name, seed) not in self._found:
            self._found[name, seed] = self._train(name, seed)
        return self._found[name, seed]


class TrainedOptions(Card):
    """Which kind of student it is, and its options."""

    kind: str
    options: dict[str, Any]


class Trained:
    """A teacher that is a student which reads pairs, opened as itself: it says what it says when it re-ranks."""

    Options = TrainedOptions
    needs_texts = True

    def __init__(self, folder: Path, card: ScorerCard, device: str) -> None:
        self.scale, self.view = Scale(card.scale), View(card.view)
        self._folder, self._about, self._device = folder, parse(TrainedOptions, card.options, card.name), device

    @classmethod
    def open(cls, card: ScorerCard, context: Context) -> Self:
        return cls(Path(card.model), card, context.device)

    @cached_property
    def _student(self) -> Any:
        kind = open_kind("students", self._about.kind)
        return kind.open(self._folder, parse(kind.Options, self._about.options, "options"), self._device)

    @property
    def fingerprint(self) -> str:
        return fingerprint("trained", self._student.fingerprint, self.view)

    def judge(self, groups: Sequence[Group]) -> list[FloatArray]:
        pairs = [(group.query.text, text) for group in groups for text in group.texts]
        ends = np.cumsum([len(group.texts) for group in groups])
        return np.split(np.asarray(self._student.score(pairs), np.float32), ends[:-1]) if groups else []
