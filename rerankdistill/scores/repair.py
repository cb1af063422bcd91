"""Save what can be read of a damaged score store."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from rerankdistill import artifacts
from rerankdistill.errors import DamagedArtifact
from rerankdistill.scores import log, parts
from rerankdistill.scores.lock import WriteLock
from rerankdistill.scores.store import KIND, LOG, parts_of, save_manifest


class Repaired(NamedTuple):
    """What was set aside: names of parts, pairs in them, unreadable stretches of the log."""

    parts: tuple[str, ...]
    pairs: int
    log_gaps: int


def repair(folder: Path | str) -> Repaired:
    """Set damaged parts aside (renamed to ``*.damaged``), drop unreadable batches from the log, keep all the rest.

    The next ``score`` fills the gaps.

    Raises:
        ArtifactError: another process is writing the store.
        MissingArtifact, DamagedArtifact: it has no manifest that can be read.
    """
    folder = Path(folder)
    manifest = artifacts.read(folder, KIND)
    lock = WriteLock(folder)
    try:
        good, bad = [], []
        for part in parts_of(manifest):
            try:
                parts.read(folder, part, ["score"])
                good.append(part)
            except DamagedArtifact:
                bad.append(part)
        gaps = _mend_log(folder / LOG)
        manifest.counts["parts"] = [part.record() for part in good]
        manifest.counts["pairs"] = sum(part.rows for part in good)
        save_manifest(folder, manifest)
        for part in bad:
            path = folder / part.name
            if path.is_file():
                path.replace(path.with_suffix(".damaged"))
        return Repaired(tuple(part.name for part in bad), sum(part.rows for part in bad), gaps)
    finally:
        lock.release()


def _mend_log(path: Path) -> int:
    data = log.read(path)
    gaps: list[int] = []
    kept = b"".join(data[record.start : record.end] for record in log.records(data, damaged=gaps))
    if len(kept) != len(data):
        staging = path.with_name(f".{path.name}.part")
        staging.write_bytes(kept)
        staging.replace(path)
    return len(gaps)
