"""What :mod:`rerankdistill.serving.weighing` learnt for fused engines, in ``weights.json`` of a work folder.

Weights are worth something for the students that they were learnt with: each entry holds their marks, and one of other
students is not read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rerankdistill import artifacts
from rerankdistill.errors import DamagedArtifact

FILE = "weights.json"

Marks = dict[str, str]
"""Of the engines that are fused, by name."""


def read_weights(root: Path) -> dict[str, Any]:
    """Every entry by its engine's name; none where nothing was learnt.

    Raises:
        DamagedArtifact: the file is none of ours.
    """
    path = root / FILE
    if not path.is_file():
        return {}
    try:
        entries: dict[str, Any] = json.loads(path.read_text("utf-8"))
        for entry in entries.values():
            if len(entry["weights"]) != len(entry["marks"]) or not all(map(_weighs, entry["weights"])):
                raise ValueError("weights that do not fit their engines")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        fix = "delete it; 'rerankdistill weigh' writes it anew"
        raise DamagedArtifact(f"cannot be read: {error}", where=str(path), fix=fix) from error
    return entries


def write_weights(root: Path, engine: str, entry: Mapping[str, Any] | None) -> None:
    """Put one engine's entry into the file, or take it out."""
    with artifacts.alone(root / f".{FILE}.lock"):
        entries = read_weights(root)
        entries.pop(engine, None)
        if entry is not None:
            entries[engine] = dict(entry)
        artifacts.write_text(root / FILE, json.dumps(entries, indent=1, ensure_ascii=False))


def weights_for(entries: Mapping[str, Any], marks: Marks) -> tuple[float, ...]:
    """Of these engines, in their order, whichever way round they were learnt; empty where none were, or of others."""
    for entry in entries.values():
        if entry["marks"] == marks:
            known = dict(zip(entry["marks"], entry["weights"], strict=True))
            return tuple(float(known[name]) for name in marks)
    return ()


def _weighs(value: Any) -> bool:
    return isinstance(value, int | float) and 0 <= value < float("inf")
