"""``weigh``: how much each of several fused engines counts, learnt from judged queries."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rerankdistill.serving.weighing import Weighed

Work = Annotated[Path, typer.Argument(help="The --out of eval or adapt.")]
Fused = Annotated[str, typer.Option(help="What is fused; default: BM25 and the first student.")]
Judged = Annotated[str, typer.Option(help="A collection with judged queries; default: votes, else the folder's own.")]
Split = Annotated[str, typer.Option(help="Whose judgements; default: dev, else train, else test.")]
Depth = Annotated[int, typer.Option(min=10, help="Documents of each list.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]


def weigh(
    work: Work, engine: Fused = "", judged: Judged = "", split: Split = "", depth: Depth = 100, device: Device = "auto"
) -> None:
    """Learn how much each engine of a fusion counts.

    Judged queries choose the weights, and five-fold cross-validation says what they are worth on others. Those that
    are better there than counting alike are kept in WORK/weights.json, and the server fuses by them.
    """
    from rerankdistill import devices
    from rerankdistill.cli.progress import Terminal, wide_console
    from rerankdistill.collections.load import load_collection
    from rerankdistill.serving.library import LEXICAL, open_library
    from rerankdistill.serving.votes import FOLDER
    from rerankdistill.serving.weighing import Judged as Queries
    from rerankdistill.serving.weighing import weigh as learn

    library = open_library(work, device=device)
    votes = work / FOLDER
    place = judged or (str(votes) if (votes / "qrels").is_dir() else "")
    queries = Queries.of(load_collection(place) if place else library.work.source, split)
    fused = [name for name in library.names() if name.startswith(f"{LEXICAL} + ") and ">" not in name]
    name = engine or next(iter(fused), library.names()[0])
    with Terminal().bar(f"searching with {name}", len(queries.queries)) as advance:
        found = learn(work, library, name, queries, devices.cores(), depth, advance)
    wide_console().print(_table(found))
    wide_console().print(_worth(found))
    wide_console().print(
        "kept: the server fuses by these weights"
        if found.kept
        else "not kept: nothing is better than counting alike on queries that it was not learnt from"
    )


def _table(found: Weighed) -> object:
    from rich.table import Table

    table = Table(title=found.engine, title_justify="left")
    for head in ("engine", "alone", "weight"):
        table.add_column(head, justify="left" if head == "engine" else "right")
    for name, alone, weight in zip(found.names, found.alone, found.weights, strict=True):
        table.add_row(name, f"{alone:.4f}", f"{weight:g}")
    return table


def _worth(found: Weighed) -> str:
    """In a sentence, what weights are worth on queries that they were not learnt from."""
    unseen = found.unseen
    about = (
        f"{unseen.queries} queries of {found.split}, nDCG@10: all alike {unseen.baseline_mean:.4f}, by weights learnt "
    )
    return about + f"from other queries {unseen.system_mean:.4f} ({unseen.difference:+.4f}, p = {unseen.p:.3f})"
