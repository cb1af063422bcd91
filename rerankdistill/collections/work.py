"""``work.json``: which collection a folder of products is about, so that it can be searched without its pipeline."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from rerankdistill import artifacts
from rerankdistill.collections.load import load_collection
from rerankdistill.contracts import Source
from rerankdistill.errors import DamagedArtifact, MissingArtifact
from rerankdistill.types import View

WORK = "work.json"


class Work(NamedTuple):
    """What the products of a folder were made of: documents, and what a model reads of them."""

    source: Source
    view: View


def remember(work: Path, collection: str, splits: Mapping[str, str], view: View) -> None:
    """Write what a folder is about. A collection inside it is named relative to it, so that the whole can be moved."""
    place, root = Path(collection).expanduser(), work.resolve()
    if place.is_dir():
        inside = place.resolve().is_relative_to(root)
        collection = f"./{place.resolve().relative_to(root)}" if inside else str(place.resolve())
    about = {"collection": collection, "splits": dict(splits), "view": view.value}
    work.mkdir(parents=True, exist_ok=True)
    artifacts.write_text(work / WORK, json.dumps(about, indent=1, ensure_ascii=False))


def recall(work: Path, collection: str = "") -> Work:
    """The collection of a folder; another one where ``collection`` names it.

    Raises:
        MissingArtifact: nothing says which.
        DamagedArtifact: ``work.json`` cannot be read.
    """
    if collection:
        return Work(load_collection(collection), View.TITLE_TEXT)
    path = work / WORK
    if not path.is_file():
        fix = "name it: --collection NAME; 'rerankdistill eval' and 'adapt' write it down"
        raise MissingArtifact("nothing here says which collection this is about", where=str(work), fix=fix)
    try:
        about = json.loads(path.read_text("utf-8"))
        name, splits, view = str(about["collection"]), dict(about["splits"]), View(about["view"])
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedArtifact(f"cannot be read: {error}", where=str(path), fix="name the collection") from error
    name = str(work / name) if name.startswith("./") else name
    return Work(load_collection(name, splits or None), view)
