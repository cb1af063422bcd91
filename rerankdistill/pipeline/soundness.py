"""Whether a pipeline can go its way, as far as its file and the cards that it names tell: no model is opened."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from rerankdistill import cards
from rerankdistill.errors import CardError, MissingDependency, RerankDistillError
from rerankdistill.examples.rescale import check_scale
from rerankdistill.index.build import options_of, read_card
from rerankdistill.kinds import open_kind
from rerankdistill.pipeline.card import PipelineCard, StageCard
from rerankdistill.pipeline.learning import arms, build_loss, student_options
from rerankdistill.scores.card import load_members, teacher_scale


def check_card(card: PipelineCard) -> None:
    """Look at every teacher, index, student and loss that a pipeline names.

    Raises:
        CardError: everything that is wrong with them, one a line.
    """
    found = list(dict.fromkeys(mistake for look in _looks(card) if (mistake := _mistake(look))))
    if found:
        raise CardError("\n  - ".join([f"{len(found)} to mend", *found]), where=f"pipeline {card.name}")


def _mistake(look: Callable[[], object]) -> str | None:
    try:
        look()
    except MissingDependency:
        return None  # this machine lacks something; the file is not to blame
    except RerankDistillError as error:
        return str(error)
    return None


def _looks(card: PipelineCard) -> Iterator[Callable[[], object]]:
    for index in card.mine.indexes:
        yield partial(check_index, index)
    for target in card.evaluate:
        if target.first_stage in cards.list_cards("indexes"):
            yield partial(check_index, target.first_stage)
    for name, student in card.students.items():
        teacher = student.teacher or card.teacher
        yield partial(check_teacher, teacher)
        yield partial(student_options, name, student)
        for arm in arms(name, student, card.seeds[:1]):
            for stage in arm.stages:
                yield partial(check_stage, stage, teacher)


def check_index(name: str) -> str:
    """What an index card says. Raises CardError."""
    card = read_card(name)
    options = options_of(card, open_kind("index", card.kind))
    return f"{card.kind} with {options.model_dump()}"


def check_teacher(name: str) -> str:
    """A teacher's scale, once its members' options have been looked at. Raises CardError."""
    for member in load_members(name):
        cards.parse(open_kind("scores", member.kind).Options, member.options, f"{member.name}: options")
    return teacher_scale(name).value


def check_stage(stage: StageCard, teacher: str) -> None:
    """A stage's loss, its options, and whether it can eat what the teacher says. Raises CardError, ScaleError."""
    loss = build_loss(stage)
    if stage.match:
        check_teacher(stage.match)
    elif "teacher" in loss.needs:
        check_scale(loss.eats, teacher_scale(teacher), stage.loss)
