"""What an index's files were when they were written, so that one that has changed since is refused.

``files.json`` holds the size and the CRC-32 of every file: against accidents, not against forgers. Files that a kind
maps into memory instead of reading them (``mapped``, the beginnings of their names) are held to their size alone,
because an index larger than memory must open without being read; :func:`check` with ``thorough`` reads them too.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from pathlib import Path

from rerankdistill.artifacts import MANIFEST, write_text
from rerankdistill.errors import DamagedArtifact

FILE = "files.json"
BLOCK = 2**20


def seal(folder: Path, living: Sequence[str] = ()) -> None:
    """Write ``files.json``. ``living``: beginnings of the names of files that their own library changes when it opens
    them, and guards itself."""
    found = {
        path.relative_to(folder).as_posix(): [path.stat().st_size, crc(path)]
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.relative_to(folder).as_posix().startswith((MANIFEST, FILE, *living))
    }
    write_text(folder / FILE, json.dumps(found, indent=1))


def check(folder: Path, mapped: Sequence[str] = (), *, thorough: bool = False) -> None:
    """Compare the files with what they were; an index of before there were seals is let through.

    Raises:
        DamagedArtifact: a file is missing, or has another size or content; names the first.
    """
    path = folder / FILE
    if not path.is_file():
        return
    try:
        wanted: dict[str, tuple[int, int]] = json.loads(path.read_text("utf-8"))
        files = {folder / name: (int(size), int(mark)) for name, (size, mark) in wanted.items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise _damaged(path, f"cannot be read: {error}") from error
    for file, (size, mark) in files.items():
        if not file.is_file():
            raise _damaged(file, "is missing")
        if file.stat().st_size != size:
            raise _damaged(file, f"has {file.stat().st_size:,} bytes, and had {size:,}")
        lazy = file.relative_to(folder).as_posix().startswith(tuple(mapped)) if mapped else False
        if (thorough or not lazy) and crc(file) != mark:
            raise _damaged(file, "holds something else than what was written")


def crc(path: Path) -> int:
    """The CRC-32 of a file's content."""
    mark = 0
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            mark = zlib.crc32(block, mark)
    return mark


def _damaged(path: Path, what: str) -> DamagedArtifact:
    fix = "delete the index; the next run builds it again"
    return DamagedArtifact(f"this part of the index {what}", where=str(path), fix=fix)
