"""Every product is a folder with its data and a ``manifest.json``: whole or not there at all.

A product is written beside its place and renamed. Its fingerprint is decided by what it was made from (inputs, card,
seed, format); versions and seconds are recorded and decide nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from rerankdistill.errors import ArtifactError, DamagedArtifact, MissingArtifact, StaleArtifact

READER = "documents"
"""Among a student's inputs: who reads documents for it, and so fills its index, where it learns to read queries
alone."""

MANIFEST = "manifest.json"
RECORDED = (
    "torch",
    "transformers",
    "sentence-transformers",
    "peft",
    "gguf",
    "vllm",
    "bm25s",
    "faiss-cpu",
    "faiss-gpu",
    "ranx",
    "pyserini",
    "numpy",
    "onnxruntime",
    "onnxscript",
    "openvino",
)


def fingerprint(*parts: Any) -> str:
    """Sixteen hex digits that change when any part changes. Parts are JSON values, or bytes."""
    digest = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else json.dumps(part, sort_keys=True, default=str).encode()
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()[:16]


def hash_file(path: Path) -> str:
    """Sixteen hex digits of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


@dataclass
class Manifest:
    """What ``manifest.json`` says."""

    kind: str
    format: int
    fingerprint: str
    card: dict[str, Any] = field(default_factory=dict)
    inputs: dict[str, str] = field(default_factory=dict)
    """The name and fingerprint of everything this was made from."""
    seed: int | None = None
    counts: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    versions: dict[str, str] = field(default_factory=dict)


def plan(
    kind: str,
    format: int,  # noqa: A002
    card: Mapping[str, Any],
    inputs: Mapping[str, str],
    seed: int | None = None,
) -> Manifest:
    """The manifest of a product that is to be made, with its fingerprint decided."""
    mark = fingerprint(kind, format, dict(card), dict(inputs), seed)
    return Manifest(kind, format, mark, dict(card), dict(inputs), seed)


@contextmanager
def write(folder: Path, manifest: Manifest) -> Iterator[Path]:
    """Make a product: yields an empty folder beside its place, which takes its place when the block ends well.

    Anything that was there before stays untouched until then. If the block raises, nothing is left behind.

    Raises:
        ArtifactError: the disk is full or cannot be written.
    """
    staging = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    began = time.perf_counter()
    try:
        sweep(folder)
        staging.mkdir(parents=True)
        yield staging
        manifest.seconds = round(time.perf_counter() - began, 3)
        manifest.versions = versions()
        write_text(staging / MANIFEST, json.dumps(asdict(manifest), indent=1, sort_keys=True, default=str))
        _open_up(staging)
        replace_folder(staging, folder)
    except OSError as error:
        shutil.rmtree(staging, ignore_errors=True)
        raise ArtifactError(
            f"could not be written: {error.strerror or error}",
            where=str(folder),
            fix="free some space or choose another --out; what was there before is unharmed",
        ) from error
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise


def _open_up(folder: Path) -> None:
    """Let whoever may read the manifest read every file: safetensors writes its own for the owner alone, and a server
    runs as somebody else."""
    mode = (folder / MANIFEST).stat().st_mode
    for path in folder.rglob("*"):
        if path.is_file() and path.stat().st_mode & mode != mode:
            path.chmod(path.stat().st_mode | mode)


def sweep(folder: Path) -> None:
    """Clear what killed writers of this folder left beside it: half-made products, and put back a product that was
    being replaced. What a living process is writing stays."""
    for old in folder.parent.glob(f".{folder.name}.*.old"):
        if _writer_lives(old):
            continue
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:
            old.rename(folder)
    for part in folder.parent.glob(f".{folder.name}.*.part"):
        if not _writer_lives(part):
            shutil.rmtree(part, ignore_errors=True)


def _writer_lives(path: Path) -> bool:
    """Whether another process, the one whose number is in the name, is still there."""
    number = path.name.split(".")[-2]
    if not number.isdigit() or int(number) == os.getpid():
        return False
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def replace_folder(new: Path, folder: Path) -> None:
    """Put ``new`` in the place of ``folder``: in one step where the system can, so that a reader finds the one or the
    other; where it cannot, :func:`sweep` undoes a replacement that was killed half-way."""
    if folder.exists() and _exchange(new, folder):
        shutil.rmtree(new, ignore_errors=True)
    elif folder.exists():
        old = folder.with_name(f".{folder.name}.{os.getpid()}.old")
        folder.rename(old)
        new.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    else:
        new.rename(folder)


def _exchange(one: Path, other: Path) -> bool:
    """Let two folders change places (Linux's ``renameat2``); False where this system or file system cannot."""
    import ctypes

    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return call is not None and call(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0


def link(source: Path, place: Path) -> None:
    """A file that is never written again, under a second name; copied where the file system has no links."""
    try:
        os.link(source, place)
    except OSError:
        shutil.copyfile(source, place)


@contextmanager
def alone(lock: Path) -> Iterator[None]:
    """Wait until no other process holds this file; a killed one lets go."""
    import fcntl

    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all, and onto the disk."""
    part = path.with_name(f".{path.name}.part")
    with part.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def read(folder: Path, kind: str) -> Manifest:
    """The manifest of a product.

    Raises:
        MissingArtifact: no such folder, or a folder without a manifest.
        DamagedArtifact: the manifest cannot be read, or is of another kind.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise MissingArtifact(f"no {kind} here", where=str(folder), fix="run the step that makes it first")
    try:
        found = Manifest(**json.loads(path.read_text("utf-8")))
    except (ValueError, TypeError) as error:
        fix = "delete the folder; the next run makes it again"
        raise DamagedArtifact(f"manifest cannot be read: {error}", where=str(path), fix=fix) from error
    if found.kind != kind:
        raise DamagedArtifact(f"this is a {found.kind}, not a {kind}", where=str(folder))
    return found


def why_stale(folder: Path, wanted: Manifest) -> str | None:
    """None when the product is there and made from the same things; else the reason why it must be made (again)."""
    sweep(folder)
    try:
        found = read(folder, wanted.kind)
    except MissingArtifact:
        return "not made yet"
    except DamagedArtifact as error:
        return error.what
    if found.fingerprint == wanted.fingerprint:
        return None
    for name in ("format", "card", "inputs", "seed"):
        old, new = getattr(found, name), getattr(wanted, name)
        if isinstance(new, dict) and isinstance(old, dict):
            changed = sorted(key for key in {*old, *new} if old.get(key) != new.get(key))
            if changed:
                return f"{', '.join(changed)} changed"
        elif old != new:
            return f"{name} changed"
    return "made by another version"


def require(folder: Path, wanted: Manifest) -> Manifest:
    """The manifest of a product that must be fresh.

    Raises:
        MissingArtifact, DamagedArtifact: see :func:`read`.
        StaleArtifact: it was made from something else; says what changed.
    """
    found = read(folder, wanted.kind)
    if reason := why_stale(folder, wanted):
        raise StaleArtifact(f"this {found.kind} is stale: {reason}", where=str(folder), fix="run the step again")
    return found


def versions() -> dict[str, str]:
    """The installed versions of what can change a result."""
    found = {}
    for name in RECORDED:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
