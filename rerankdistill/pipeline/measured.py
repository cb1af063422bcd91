"""What was measured of a teacher, written into the user's own card; every comment and blank line of it stays."""

from __future__ import annotations

from pathlib import Path

import tomlkit

from rerankdistill.artifacts import write_text
from rerankdistill.cards import find_card, list_cards, parse
from rerankdistill.errors import CardError, UsageError
from rerankdistill.pipeline.inspection import Measured
from rerankdistill.scores.card import EnsembleCard, ScorerCard


def own_card(name: str) -> Path:
    """The file of a user's own card. Raises UsageError for a shipped one, CardError where there is none."""
    path = find_card("teachers", name)
    shipped = {each.resolve() for each in list_cards("teachers").values()}
    if path.resolve() in shipped:
        stem = path.stem
        fix = f"make it yours: rerankdistill teachers copy {stem} my-{stem}.toml, then measure that file"
        raise UsageError(f"{name!r} is a shipped card, which is never changed", where="--write", fix=fix)
    return path


def write_measured(path: Path, found: Measured) -> None:
    """Put the figures into the card's ``[measured]`` table; what it holds of other collections stays.

    Raises:
        CardError: the file is no TOML any more, or would be no card afterwards; it is then left as it was.
    """
    try:
        document = tomlkit.parse(path.read_text("utf-8"))
    except (tomlkit.exceptions.TOMLKitError, UnicodeDecodeError) as error:
        raise CardError(f"not valid TOML: {error}", where=str(path)) from error
    if "measured" not in document:
        if document.body and not document.as_string().endswith("\n\n"):
            document.add(tomlkit.nl())
        document.add("measured", tomlkit.table())
    table = document["measured"]
    for name, value in figures(found).items():
        table[name] = value
    model = EnsembleCard if document.get("kind") == "ensemble" else ScorerCard
    parse(model, document.unwrap(), str(path))
    write_text(path, document.as_string())


def figures(found: Measured) -> dict[str, float | str]:
    """What is worth keeping of a measurement, by names that say on what."""
    on, f = found.on, found.findings
    place = Path(str(on["collection"]))
    about = f"{place.resolve().name if place.exists() else on['collection']} {on['split']}"
    values: dict[str, float | str | None] = {
        "ndcg@10": f.ndcg,
        "first stage ndcg@10": f.ndcg_first,
        "student ndcg@10": f.ndcg_student,
        "entropy": f.entropy,
        "one-hot": f.one_hot,
        "of": f"{on['run']} top {on['depth']}, {f.queries} queries, {on['date']}",
        "verdict": found.verdict.words,
    }
    out: dict[str, float | str] = {}
    for name, value in values.items():
        if value is not None:
            out[f"{about} {name}"] = round(value, 4) if isinstance(value, float) else value
    if found.pairs_per_second is not None:
        out["pairs per second"] = found.pairs_per_second
    return out
