"""``sweep``: objectives beside each other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from rerankdistill.cli.walks import DryRun, Force, Out, Set, Small


def sweep(
    file: Annotated[str, typer.Argument(help="A sweep's file or shipped name; see 'rerankdistill sweeps list'.")],
    out: Out = Path("work"),
    set_: Set = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="So many seeds, in place of the file's.")] = None,
    small: Small = False,
    force: Force = False,
    dry_run: DryRun = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else, to stdout.")] = False,
) -> None:
    """Train one student with many objectives; one table.

    Every objective of the file, in every variation of the student, from every teacher, with every seed, tested against
    one baseline. What is fresh is skipped, so a sweep that was stopped goes on. --set overrides fields of the sweep's
    pipeline.
    """
    from rerankdistill.cli.progress import Terminal, wide_console
    from rerankdistill.cli.walks import say_plan
    from rerankdistill.pipeline import verbs
    from rerankdistill.pipeline.sweep import expand, load_sweep, rows, save, texts, to_json

    card = load_sweep(file, tuple(set_ or ()), small)
    if seeds:
        card = card.model_copy(update={"seeds": seeds})
    whole = expand(card)
    if force:
        whole = whole.model_copy(update={"check": whole.check.model_copy(update={"force": True})})
    if dry_run:
        say_plan(whole, out, proof=True)
        return
    notes = Terminal()
    tables = []
    for folder in verbs.evaluate(whole, out, notes):
        report = json.loads((folder / "report.json").read_text("utf-8"))
        found = rows(card, whole, report)
        written = save(card, report, found, out / "sweeps", folder.name)
        tables.append((folder, written, report, found))
    if as_json:
        made = [to_json(card, report, found) for _, _, report, found in tables]
        print(json.dumps(made[0] if len(made) == 1 else made, indent=1, ensure_ascii=False))
        return
    for folder, written, report, found in tables:
        wide_console().print(_table(f"{card.name}: {report['collection']} · {report['split']}", texts(found)))
        notes.say(f"table: {written}; plot: {folder / 'report.html'}")


def _table(title: str, lines: list[tuple[str, ...]]) -> object:
    from rich.table import Table

    from rerankdistill.pipeline.sweep import HEADS

    table = Table(title=title, title_justify="left")
    for at, name in enumerate(HEADS):
        table.add_column(name, justify="left" if at < 3 else "right", no_wrap=True)
    for line in lines:
        table.add_row(*line)
    return table
