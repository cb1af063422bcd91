"""``train`` and ``eval``: the whole way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rerankdistill.pipeline.card import PipelineCard

Pipeline = Annotated[str, typer.Argument(help="A pipeline's file or shipped name; see 'rerankdistill pipelines list'.")]
Out = Annotated[Path, typer.Option("--out", "-o", help="Folder for everything that is made.")]
Set = Annotated[list[str] | None, typer.Option("--set", help="Override a field: --set a.b=value, as often as needed.")]
Collection = Annotated[str | None, typer.Option(help="ir-datasets id, folder, or pydocs.")]
Teacher = Annotated[str | None, typer.Option(help="Card of the teacher; see 'rerankdistill teachers list'.")]
Student = Annotated[str | None, typer.Option(help="Model to start the student from.")]
Loss = Annotated[str | None, typer.Option(help="Loss of the last stage, e.g. 'kl_div + 0.1 infonce'.")]
Seeds = Annotated[int | None, typer.Option(min=1, help="Train every arm with so many seeds: 1, 2, …")]
Force = Annotated[bool, typer.Option("--force", help="Train also on a teacher that the check says not to distil.")]
Small = Annotated[bool, typer.Option("--small", help="The file's small form: minutes on two cores, no download.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would run and why, and how long it may take.")]


def train(
    pipeline: Pipeline = "default",
    out: Out = Path("work"),
    set_: Set = None,
    collection: Collection = None,
    teacher: Teacher = None,
    student: Student = None,
    loss: Loss = None,
    seeds: Seeds = None,
    small: Small = False,
    force: Force = False,
    dry_run: DryRun = False,
) -> None:
    """Mine, score and distil, up to the trained students.

    What is fresh is skipped.
    """
    card = _card(pipeline, set_, collection, teacher, student, loss, seeds, small, force)
    if dry_run:
        say_plan(card, out, proof=False)
        return
    from rerankdistill.cli.progress import Terminal
    from rerankdistill.pipeline import verbs

    notes = Terminal()
    verbs.train(card, out, notes)
    for name in card.students:
        for seed in card.seeds:
            notes.say(f"student: {out / 'students' / f'{name}-seed{seed}'}")


def evaluate(
    pipeline: Pipeline = "default",
    out: Out = Path("work"),
    set_: Set = None,
    collection: Collection = None,
    teacher: Teacher = None,
    student: Student = None,
    loss: Loss = None,
    seeds: Seeds = None,
    small: Small = False,
    force: Force = False,
    dry_run: DryRun = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the report as JSON, and nothing else, to stdout.")
    ] = False,
) -> None:
    """Measure the students and write a report.

    Rows: first stage, students before and after, controls, fusions, teacher. What is not trained yet is trained.
    """
    card = _card(pipeline, set_, collection, teacher, student, loss, seeds, small, force)
    if dry_run:
        say_plan(card, out, proof=True)
        return
    from rerankdistill.cli.progress import Terminal
    from rerankdistill.pipeline import verbs

    notes = Terminal()
    folders = verbs.evaluate(card, out, notes)
    reports = [json.loads((folder / "report.json").read_text("utf-8")) for folder in folders]
    if as_json:
        print(json.dumps(reports[0] if len(reports) == 1 else reports, indent=1, ensure_ascii=False))
    else:
        _draw(reports)
        for folder in folders:
            notes.say(f"report: {folder / 'report.html'}")
    verbs.hold_to_expectations(card, folders)


def _draw(reports: list[dict[str, Any]]) -> None:
    from rerankdistill.cli.progress import wide_console
    from rerankdistill.evaluation.report import from_json
    from rerankdistill.evaluation.table import to_table

    for report in reports:
        wide_console().print(to_table(from_json(report)))


def _card(
    pipeline: str,
    overrides: list[str] | None,
    collection: str | None,
    teacher: str | None,
    student: str | None,
    loss: str | None,
    seeds: int | None,
    small: bool,
    force: bool,
) -> PipelineCard:
    """The pipeline with the short options put in; they speak of every student of the file."""
    from rerankdistill.pipeline.card import load_pipeline

    lines = []
    if collection:
        lines.append(f"collection={json.dumps(collection)}")
    if teacher:
        lines.append(f"teacher={json.dumps(teacher)}")
    if seeds:
        lines.append(f"seeds={list(range(1, seeds + 1))}")
    if student or loss:
        for name, card in load_pipeline(pipeline, small=small).students.items():
            if student:
                lines.append(f"students.{name}.options.init={json.dumps(student)}")
            if loss:
                last = len(card.stages) - 1
                lines += [
                    f"students.{name}.stages.{last}.loss={json.dumps(loss)}",
                    f"students.{name}.stages.{last}.options={{}}",
                ]
    whole = load_pipeline(pipeline, (*lines, *(overrides or ())), small)
    if not force:
        return whole
    return whole.model_copy(update={"check": whole.check.model_copy(update={"force": True})})


def say_plan(card: PipelineCard, out: Path, proof: bool) -> None:
    from rerankdistill.cli.progress import duration
    from rerankdistill.pipeline import verbs

    planned = verbs.plan(card, out, proof)
    for each in planned:
        if each.reason is None:
            print(f"fresh   {each.step.name}")
        else:
            estimate = "" if each.seconds is None else f", about {duration(each.seconds)}"
            print(f"run     {each.step.name} ({each.reason}{estimate})")
    running = [each for each in planned if each.reason]
    timed = [each.seconds for each in running if each.seconds is not None]
    told = [f"about {duration(sum(timed))}"] if timed else []
    if len(timed) < len(running):
        told.append(f"{len(running) - len(timed)} never timed yet")
    print("; ".join([f"{len(running)} of {len(planned)} steps would run", *told]))
