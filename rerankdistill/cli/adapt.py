"""``adapt``: from documents without queries to a student that knows them, and what shows it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from rerankdistill.cli.walks import Out, Set, Student, Teacher

Docs = Annotated[str, typer.Argument(help="A folder or file of documents, or a collection (its documents alone).")]
Style = Annotated[list[str] | None, typer.Option("--style", help="A style, or NAME=WEIGHT; as often as needed.")]
Writer = Annotated[str, typer.Option(help="Card of a teacher whose language model writes; empty: by rules.")]
KeepOut = Annotated[list[str] | None, typer.Option(help="A collection whose test queries must not be trained on.")]
On = Annotated[list[str] | None, typer.Option("--evaluate", help="A collection with judgements to measure on as well.")]
Queries = Annotated[int, typer.Option(min=0, help="How many to write; 0: two a document, 4,000 at most.")]

Second = Annotated[str, typer.Option(help="Card of a teacher that only judges the held-out queries.")]
Agree = Annotated[bool, typer.Option("--agree", help="Train only on queries that the second teacher confirms.")]
Relabel = Annotated[bool, typer.Option("--relabel", help="The teacher may choose another document as the answer.")]
LeaveOut = Annotated[bool, typer.Option("--leave-out-judged", help="Leave out documents that tests call relevant.")]
Continue = Annotated[str, typer.Option("--continue", help="Folder of a student in use, to be trained on.")]
Keep = Annotated[float, typer.Option(min=0, max=0.99, help="Weight of its old answers among the teachers.")]


def adapt(
    docs: Docs,
    out: Out = Path("work"),
    style: Style = None,
    queries: Queries = 0,
    writer: Writer = "",
    teacher: Teacher = None,
    student: Student = None,
    keep_out: KeepOut = None,
    on: On = None,
    second_teacher: Second = "",
    agree: Agree = False,
    relabel: Relabel = False,
    leave_out_judged: LeaveOut = False,
    continue_: Continue = "",
    keep: Keep = 0.0,
    pipeline: Annotated[str, typer.Option(help="The pipeline that trains; a file or a shipped name.")] = "adapt",
    set_: Set = None,
    seed: int = 1,
) -> None:
    """Turn documents without queries into a student.

    They are read, queries are written about them, the teacher is distilled, and the student is measured.

    What is fresh is skipped; new documents cost their own queries.
    """
    from rerankdistill.cards import parse
    from rerankdistill.cli.progress import Terminal, wide_console
    from rerankdistill.evaluation.report import from_json
    from rerankdistill.evaluation.table import to_table
    from rerankdistill.pipeline.adapt import adapt as walk
    from rerankdistill.pipeline.reading import AdaptCard

    asked = {"docs": docs, "queries": queries, "writer": writer, "seed": seed}
    asked |= {"second_teacher": second_teacher, "relabel": relabel, "leave_out_judged": leave_out_judged}
    asked |= {"continue_from": continue_, "keep": keep, "sift": {"agree": agree}}
    asked |= {"keep_out": tuple(dict.fromkeys([*(keep_out or ()), *(on or ())]))}
    if style:
        asked["styles"] = dict(map(_weighted, style))
    lines = list(set_ or ())
    if teacher:
        lines.insert(0, f"teacher={json.dumps(teacher)}")
    if student:
        lines.insert(0, f"students.adapted.options.init={json.dumps(student)}")
    notes = Terminal()
    found = walk(parse(AdaptCard, asked, "adapt"), pipeline, tuple(lines), tuple(on or ()), out, notes)
    console = wide_console()
    console.print(_funnel(found.funnel))
    for folder in found.reports:
        report = from_json(json.loads((folder / "report.json").read_text("utf-8")))
        console.print(to_table(report))
        for line in report.notes[:2]:
            console.print(line, markup=False, soft_wrap=True)
        notes.say(f"report: {folder / 'report.html'}")
    for student_folder in found.students:
        notes.say(f"student: {student_folder}")


def _weighted(text: str) -> tuple[str, float]:
    from rerankdistill.errors import UsageError

    name, equals, weight = text.partition("=")
    try:
        number = float(weight) if equals else 1.0
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise UsageError(f"{weight!r} is no weight", where=f"--style {text}", fix="write --style question=2")
    return name, number


def _funnel(sieves: list[dict[str, object]]) -> object:
    """Each filter with what it left, and some that it threw out."""
    from rich.table import Table

    table = Table(title="queries", title_justify="left")
    for head in ("filter", "came", "left", "thrown out, for example"):
        table.add_column(head, justify="right" if head in ("came", "left") else "left")
    for sieve in sieves:
        shown = sieve["examples"]
        example = str(shown[0]) if isinstance(shown, list) and shown else ""
        table.add_row(str(sieve["name"]), f"{sieve['came']:,}", f"{sieve['passed']:,}", example[:80])
    return table
