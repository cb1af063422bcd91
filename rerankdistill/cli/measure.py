"""``teachers measure``: is this teacher worth distilling?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from rerankdistill.pipeline.inspection import Measured

Cards = Annotated[list[str], typer.Argument(help="Teachers' cards: names, or paths of .toml files.")]


def measure(
    cards: Cards,
    collection: Annotated[str, typer.Option(help="ir-datasets id, folder, or pydocs.")],
    run: Annotated[str, typer.Option(help="TREC file, a run of the collection's own, or an index card.")] = "bm25",
    split: Annotated[str, typer.Option(help="Whose judgements; default: the first of dev, train, test.")] = "",
    queries: Annotated[int, typer.Option(min=0, help="Only so many judged queries; 0: all.")] = 0,
    depth: Annotated[int, typer.Option(min=2, help="Candidates of each query.")] = 20,
    student: Annotated[str, typer.Option(help="A bi-encoder to compare with.")] = "",
    tau: Annotated[float | None, typer.Option(help="Temperature of the listwise loss you will use.")] = None,
    pairs: Annotated[int, typer.Option(min=0, help="Pairs of the job ahead, for its time and money.")] = 0,
    pipeline: Annotated[str, typer.Option(help="Or the pipeline whose job is ahead.")] = "",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 …")] = "auto",
    seed: Annotated[int, typer.Option(min=0, help="Chooses the queries.")] = 1,
    write: Annotated[bool, typer.Option("--write", help="Put what was measured into your own cards.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for scores; what is there is not scored again.")
    ] = Path("work"),
) -> None:
    """Measure teachers on judged queries: their nDCG@10 beside the first stage's and a student's, how flat or peaked
    their scores are, how they agree, what they cost, and whether to distil them.

    A bad teacher is a finding, not an error.
    """
    from rerankdistill.cli.progress import Terminal
    from rerankdistill.errors import UsageError
    from rerankdistill.pipeline.card import load_pipeline
    from rerankdistill.pipeline.inspection import Task, measure_teachers, pairs_ahead
    from rerankdistill.pipeline.measured import own_card, write_measured

    if tau is not None and tau <= 0:
        raise UsageError(f"a temperature must be above 0, got {tau}", where="--tau")
    own = [own_card(name) for name in cards] if write else []
    notes = Terminal()
    ahead = pairs or (pairs_ahead(load_pipeline(pipeline), out) if pipeline else 0)
    task = Task(collection, run, split, queries, depth, student, tau, ahead, device, seed)
    found = measure_teachers(cards, task, out, notes)
    for path, each in zip(own, found, strict=bool(own)):
        write_measured(path, each)
        notes.say(f"written into {path}")
    if as_json:
        print(json.dumps([each.as_dict() for each in found], indent=1, ensure_ascii=False, allow_nan=False))
        return
    from rerankdistill.cli.progress import wide_console

    console = wide_console()
    console.print(_table(found))
    for line in _lines(found, ahead):
        console.print(line, markup=False, soft_wrap=True)


def _table(found: list[Measured]) -> Table:
    from rich import box
    from rich.table import Table

    on, findings = found[0].on, found[0].findings
    title = f"{on['collection']} · {on['split']}: {findings.queries} queries, {on['run']} top {on['depth']}"
    table = Table(title=title, title_justify="left", box=box.SIMPLE, padding=(0, 1, 0, 0))
    table.add_column("teacher", overflow="fold", min_width=min(24, max(len(each.name) for each in found)))
    for name in ("kind", "scale"):
        table.add_column(name, no_wrap=True)
    for name in ("nDCG@10", "first stage", "student", "entropy", "one-hot", "ties", "tau", "pairs/s"):
        table.add_column(name, justify="right", no_wrap=name != "first stage")
    table.add_column("verdict", overflow="fold")
    for each in found:
        f = each.findings
        taus = list(f.taus.values())
        mean = sum(taus) / len(taus) if taus else None
        figures = (f.ndcg, f.ndcg_first, f.ndcg_student, f.entropy, f.one_hot, f.ties, mean)
        rate = "–" if each.pairs_per_second is None else f"{each.pairs_per_second:,.1f}"
        grade = each.verdict.grade if each.verdict.grade == "good" else f"{each.verdict.grade}: "
        verdict = grade + ", ".join(each.verdict.names)
        table.add_row(each.name, each.kind, each.scale, *(_figure(value) for value in figures), rate, verdict)
    return table


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _lines(found: list[Measured], ahead: int) -> list[str]:
    """What does not fit into the table: the verdicts in full, each pair of teachers, and the job ahead."""
    from rerankdistill.cli.progress import duration

    lines = [f"{each.name}: {each.verdict.words}" for each in found]
    if len(found) > 2:
        for each in found:
            pairs = ", ".join(f"{name} {tau:.2f}" for name, tau in each.findings.taus.items())
            lines.append(f"{each.name}: tau to {pairs}")
    for each in found:
        parts = [f"{each.memory_mb:,.0f} MB"] if each.memory_mb else []
        if each.gpu_mb:
            parts.append(f"{each.gpu_mb:,.0f} MB on the GPU")
        if each.seconds_ahead is not None:
            parts.append(f"about {duration(each.seconds_ahead)} for the {ahead:,} pairs ahead")
        if each.money_ahead is not None:
            parts.append(f"and about {each.money_ahead:,.2f} of money")
        if each.usage:
            parts.append("so far " + ", ".join(f"{name} {amount:,.6g}" for name, amount in each.usage.items()))
        if parts:
            lines.append(f"{each.name}: {', '.join(parts)}")
    return lines
