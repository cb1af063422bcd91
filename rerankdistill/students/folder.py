"""What lies in a student's folder: its kind and what decided it, by its manifest, else by its library's own files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from rerankdistill import artifacts
from rerankdistill.errors import DataError

KINDS = {"SentenceTransformer": "bi_encoder", "CrossEncoder": "cross_encoder", "SparseEncoder": "sparse"}
"""By the type that sentence-transformers writes down."""


class Folder(NamedTuple):
    """A model's folder. ``options``: those of the student's kind; empty for a model that was made elsewhere."""

    path: Path
    kind: str
    options: dict[str, Any]

    @property
    def name(self) -> str:
        return self.path.name


def look(path: Path) -> Folder:
    """Raises DataError: there is no model; DamagedArtifact: its manifest cannot be read."""
    if (path / artifacts.MANIFEST).is_file():
        card = artifacts.read(path, "student").card
        options = dict(card.get("student", card))
        return Folder(path, str(options.pop("kind", "bi_encoder")), options)
    about, config = _json(path / "config_sentence_transformers.json"), _json(path / "config.json")
    if not about and not config and not (path / "modules.json").is_file():
        fix = "give a student's folder, as students/small-seed1 of an --out"
        raise DataError("there is no model in this folder", where=str(path), fix=fix)
    architectures = config.get("architectures") or [""]
    default = "cross_encoder" if str(architectures[0]).endswith("ForSequenceClassification") else "bi_encoder"
    return Folder(path, KINDS.get(str(about.get("model_type")), default), {})


def _json(path: Path) -> dict[str, Any]:
    try:
        table = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    except ValueError as error:
        raise DataError(f"this is not JSON: {error}", where=str(path), fix="publish the student again") from error
    return table if isinstance(table, dict) else {}
