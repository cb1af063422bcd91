"""The shelves of cards, ``losses`` and ``collections``: list, show, copy, check …"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from rerankdistill.cli import indexes
from rerankdistill.cli.measure import measure

BESIDE = {"vectors", "preferences", "layers", "logits"}
"""What a loss may need of a teacher instead of its scores."""

Name = Annotated[str, typer.Argument(help="A card's name, or the path of a .toml file.")]


def _card_shelf(room: str, what: str, check: Callable[[str], str]) -> typer.Typer:
    """The four commands of a shelf of cards."""
    shelf = typer.Typer(help=f"The cards of {what}.", no_args_is_help=True)

    @shelf.command("list")
    def list_() -> None:
        """One line a card."""
        from rerankdistill.cards import list_cards, read_toml

        for name, path in list_cards(room).items():
            print(f"{name:28} {str(read_toml(path).get('description', '')).splitlines()[0] if path else ''}")

    @shelf.command()
    def show(name: Name) -> None:
        """Print a card as it is."""
        from rerankdistill.cards import find_card

        print(find_card(room, name).read_text("utf-8"), end="")

    @shelf.command()
    def copy(name: Name, to: Annotated[Path, typer.Argument(help="File or folder.")] = Path()) -> None:
        """Copy a card: it is yours to change."""
        from rerankdistill.cards import find_card
        from rerankdistill.errors import UsageError

        source = find_card(room, name)
        place = to / source.name if to.is_dir() else to
        if place.exists():
            raise UsageError("there is a file of that name already", where=str(place), fix="name another")
        shutil.copyfile(source, place)
        print(place)

    @shelf.command("check")
    def check_(name: Name) -> None:
        """Read a card strictly and say every mistake at once."""
        print(check(name))

    return shelf


def _check_teacher(name: str) -> str:
    from rerankdistill.pipeline.soundness import check_teacher, scale_of

    return f"{name}: good; its scores are on scale {scale_of(check_teacher(name)).value}"


def _check_index(name: str) -> str:
    from rerankdistill.pipeline.soundness import check_index

    return f"{name}: good; {check_index(name)}"


def _check_pipeline(name: str) -> str:
    from rerankdistill.cards import has_small
    from rerankdistill.pipeline.card import load_pipeline
    from rerankdistill.pipeline.soundness import check_card

    told = []
    for small in (False, True) if has_small("pipelines", name) else (False,):
        card = load_pipeline(name, small=small)
        check_card(card)
        about = f"collection {card.collection}, teacher {card.teacher}, students {', '.join(card.students)}"
        told.append(f"{name}{' --small' if small else ''}: good; {about}")
    return "\n".join(told)


def _check_sweep(name: str) -> str:
    from rerankdistill.cards import has_small
    from rerankdistill.pipeline.soundness import check_card
    from rerankdistill.pipeline.sweep import expand, load_sweep

    told = []
    for small in (False, True) if has_small("sweeps", name) else (False,):
        sweep = load_sweep(name, small=small)
        whole = expand(sweep)
        check_card(whole)
        about = f"{len(whole.students)} students with {sweep.seeds} seeds each, against {sweep.against}"
        told.append(f"{name}{' --small' if small else ''}: good; {about}")
    return "\n".join(told)


def _check_style(name: str) -> str:
    from rerankdistill.queries.styles import load_style

    style = load_style(name)
    ways = [way for way, can in (("by rules", style.rule), ("by a language model", style.prompt)) if can]
    return f"{name}: good; written {' and '.join(ways)}"


def _losses() -> typer.Typer:
    shelf = typer.Typer(help="The losses a student can be trained with.", no_args_is_help=True)

    @shelf.command("list")
    def list_() -> None:
        """One line a loss."""
        from rerankdistill.kinds import names, open_kind

        for name in names("losses"):
            kind: Any = open_kind("losses", name)
            print(f"{name:24} {_first_line(kind, name)}")

    @shelf.command()
    def show(name: Annotated[str, typer.Argument(help="A loss.")]) -> None:
        """Its formula, source, options, what it learns from, and the teacher scales it eats."""
        import sys

        from rerankdistill.kinds import open_kind

        kind: Any = open_kind("losses", name)
        print((sys.modules[kind.__module__].__doc__ or "").strip())
        print(f"\n{(kind.__doc__ or '').strip()}")
        loss = kind()
        print(f"\nlearns from: {', '.join(sorted(loss.needs - {'student'}))}")
        said = "no scores (a teacher says something else)" if loss.needs & BESIDE else "no teacher (labels only)"
        print(f"eats: {', '.join(sorted(scale.value for scale in loss.eats)) or said}")
        options = getattr(sys.modules[kind.__module__], "Options", None)
        if options is not None:
            print("options: " + ", ".join(f"{key} = {field.default!r}" for key, field in options.model_fields.items()))

    return shelf


def _first_line(kind: Any, name: str) -> str:
    import sys

    text = (sys.modules[kind.__module__].__doc__ or kind.__doc__ or name).strip()
    return text.splitlines()[0]


def _collections() -> typer.Typer:
    shelf = typer.Typer(help="Collections: pydocs, folders, ir-datasets ids.", no_args_is_help=True)

    @shelf.command("list")
    def list_() -> None:
        """The built-in collection, and how to name others."""
        print("pydocs                       the documentation of this Python's standard library (built in)")
        print("pydocs/2000                  so many of its documents")
        print("a folder                     corpus.jsonl, queries.jsonl, qrels/<split>.tsv (BEIR layout, .gz too)")
        print("an ir-datasets id            beir/scifact, msmarco-passage/trec-dl-2019/judged, …")

    @shelf.command("check")
    def check(name: Annotated[str, typer.Argument(help="pydocs, a folder, or an ir-datasets id.")]) -> None:
        """Read all of a collection and count it."""
        from rerankdistill.collections.load import load_collection

        source = load_collection(name)
        print(f"documents {len(source.doc_ids()):,}")
        for split in source.splits():
            judged = sum(1 for _ in source.judgements(split))
            print(f"{split}: {len(source.queries(split)):,} queries, {judged:,} judgements")

    return shelf


SHELVES = {
    "teachers": _card_shelf("teachers", "teachers", _check_teacher),
    "indexes": _card_shelf("indexes", "indexes", _check_index),
    "pipelines": _card_shelf("pipelines", "pipelines", _check_pipeline),
    "sweeps": _card_shelf("sweeps", "sweeps", _check_sweep),
    "styles": _card_shelf("styles", "styles", _check_style),
    "losses": _losses(),
    "collections": _collections(),
}
SHELVES["teachers"].command("measure")(measure)
for _verb in (indexes.build, indexes.update, indexes.verify, indexes.advise):
    SHELVES["indexes"].command(_verb.__name__)(_verb)
