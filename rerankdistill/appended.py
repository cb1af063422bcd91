"""Files of JSON lines that are only ever appended to: what was written is on the disk, a kill costs the last line."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from rerankdistill.errors import DamagedArtifact


def replay(path: Path, take: Callable[[Any], None], fix: str) -> None:
    """Give every record of a file to ``take``, in order. A last line that a kill tore is cut off.

    Raises:
        DamagedArtifact: a line is no JSON, or no record that ``take`` can do with; says which, and ``fix``.
    """
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    for number, line in enumerate(data[:whole].splitlines(), 1):
        try:
            take(json.loads(line))
        except (ValueError, KeyError, TypeError) as error:
            raise DamagedArtifact(f"line {number} cannot be read", where=str(path), fix=fix) from error
    if whole < len(data):
        with path.open("r+b") as file:
            file.truncate(whole)


def append(path: Path, records: Iterable[Any]) -> None:
    """Append records; they are on the disk when this returns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    block = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    with path.open("ab") as file:
        file.write(block.encode("utf-8", "surrogatepass"))
        file.flush()
        os.fsync(file.fileno())
