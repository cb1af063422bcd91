"""Whether a pipeline can go its way, as far as its file and the cards that it names tell: no model is opened."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from rerankdistill import cards
from rerankdistill.errors import CardError, MissingDependency, RerankDistillError
from rerankdistill.examples.build import example_scale
from rerankdistill.examples.rescale import check_scale
from rerankdistill.index.build import options_of, read_card
from rerankdistill.kinds import open_kind
from rerankdistill.pipeline.card import PipelineCard, StageCard
from rerankdistill.pipeline.chain import Cast, cast, check_chain, student_in
from rerankdistill.pipeline.learning import arms, build_loss, student_options
from rerankdistill.pipeline.teaching import fused_as
from rerankdistill.types import Scale

NO_STUDENTS = PipelineCard(name="cards", collection="none", students={"none": {}})  # type: ignore[dict-item]
"""Where a card is looked at by itself."""


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
    for teacher in teachers_of(card):
        yield partial(check_teacher, teacher, card)
    yield partial(check_chain, card)
    for name, student in card.students.items():
        yield partial(student_options, name, student)
        for arm in arms(name, student, card.seeds[:1]):
            for stage in arm.stages:
                yield partial(check_stage, stage, student.teacher or card.teacher, card)


def teachers_of(card: PipelineCard) -> list[str]:
    """Every card of a teacher that a pipeline names, each once; students that teach are none."""
    found: list[str] = []
    for name, student in card.students.items():
        found += [student.teacher or card.teacher, student.preferences]
        if student.refine:
            found += [student.refine.teacher, *(each.teacher for each in student.refine.rounds)]
        stages = [stage for arm in arms(name, student, card.seeds[:1]) for stage in arm.stages]
        found += [teacher for stage in stages for teacher in (*stage.matched, stage.layers_from)]
    return [name for name in dict.fromkeys(found) if name and student_in(name) is None]


def _matched(stage: StageCard) -> tuple[str, ...]:
    return (stage.match,) if isinstance(stage.match, str) else tuple(stage.match)


def check_index(name: str) -> str:
    """What an index card says. Raises CardError."""
    card = read_card(name)
    options = options_of(card, open_kind("index", card.kind))
    return f"{card.kind} with {options.model_dump()}"


def check_teacher(name: str, pipeline: PipelineCard = NO_STUDENTS) -> Cast:
    """Who is behind a teacher, once its members' options have been looked at. Raises CardError."""
    found = cast(pipeline, name)
    for member, _ in found.members:
        if member.name not in found.students:
            cards.parse(open_kind("scores", member.kind).Options, member.options, f"{member.name}: options")
    return found


def scale_of(found: Cast) -> Scale:
    """Of what a teacher gives to the examples. Raises ScaleError."""
    return example_scale([member.scale for member, _ in found.members], fused_as(found.card))


def check_stage(stage: StageCard, teacher: str, pipeline: PipelineCard) -> None:
    """A stage's loss, its options, and whether it can eat what the teacher says. Raises CardError, ScaleError."""
    loss = build_loss(stage)
    if not stage.match and "teacher" in loss.needs:
        check_scale(loss.eats, scale_of(cast(pipeline, teacher)), stage.loss)
