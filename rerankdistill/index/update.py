"""Add, replace and delete documents of an index without building it again.

The next index is written beside the present one and takes its place in one step; whoever has the present one open
reads on in it. A kind that can be updated has a method ``update``: it writes the next index into an empty folder from
the present one, and keeps what was learnt (ranges, codebooks, centroids, the graph).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rerankdistill import artifacts
from rerankdistill.errors import DataError, StaleArtifact, UsageError
from rerankdistill.index import seal
from rerankdistill.index.build import sealed
from rerankdistill.index.ids import check_ids, open_ids
from rerankdistill.representations import count


def update_index(
    folder: Path,
    kind_class: Any,
    doc_ids: Sequence[str],
    content: Any,
    deleted: Collection[str] = (),
    encoder: str | None = None,
    mark: str = "",
    docs: str = "",
    device: str = "auto",
) -> dict[str, int]:
    """Update an index, whole or not at all.

    Args:
        doc_ids: documents that are added; one that is there already is replaced.
        content: what the kind ``accepts``, one for each of them.
        deleted: documents that go; one that is not there is no error, so that an update can be done twice.
        encoder: the fingerprint of what made ``content``.
        mark: of the texts of the update, which decides the new fingerprint.
        docs: the fingerprint of the documents as they are then, where it is known: the index then counts as built of
            them.

    Returns:
        ``added``, ``replaced``, ``deleted``, ``unknown`` (to be deleted, and not there), ``documents``.

    Raises:
        UsageError: this kind cannot be updated.
        StaleArtifact: the index was filled by another encoder.
        DataError: bad ids or content; a document both given and deleted; nothing would be left.
    """
    _can(folder, kind_class)
    _check(folder, doc_ids, content, deleted)
    with _alone(folder):
        present = artifacts.read(folder, "index")
        if encoder is not None and present.inputs.get("encoder") != encoder:
            what = f"this index was filled by encoder {present.inputs.get('encoder')}, and the update by {encoder}"
            raise StaleArtifact(what, where=str(folder), fix="update it with the encoder that filled it")
        seal.check(folder, getattr(kind_class, "mapped", ()))
        there = set(open_ids(folder).alive)
        gone = there & ({*doc_ids} | {*deleted})
        told = {
            "added": len({*doc_ids} - there),
            "replaced": len({*doc_ids} & there),
            "deleted": len({*deleted} & there),
            "unknown": len({*deleted} - there),
            "documents": len(there - gone) + len(doc_ids),
        }
        if not told["documents"]:
            raise DataError("no document would be left", where=str(folder), fix="delete the folder instead")
        if not gone and not doc_ids:
            return told
        docs = docs or artifacts.fingerprint("updated", present.inputs.get("docs"), mark, sorted(doc_ids), sorted(gone))
        manifest = artifacts.plan("index", present.format, present.card, {**present.inputs, "docs": docs}, present.seed)
        with artifacts.write(folder, manifest) as staging:
            kind_class.update(staging, folder, gone, doc_ids, content, device)
            manifest.counts = {**present.counts, "documents": told["documents"], "bytes": sealed(staging, kind_class)}
            manifest.counts["updates"] = int(present.counts.get("updates", 0)) + 1
    return told


def _can(folder: Path, kind_class: Any) -> None:
    if hasattr(kind_class, "update"):
        return
    name = kind_class.__module__.rpartition(".")[2]
    what = f"an index of kind {name!r} cannot be updated"
    raise UsageError(what, where=str(folder), fix="build it again, or choose a kind that can be updated")


def _check(folder: Path, doc_ids: Sequence[str], content: Any, deleted: Collection[str]) -> None:
    if count(content) != len(doc_ids):
        raise DataError(f"contents of {count(content)} documents for {len(doc_ids)} doc_ids", where=str(folder))
    if len(doc_ids):
        check_ids(doc_ids)
    if both := {*doc_ids} & {*deleted}:
        what = f"{len(both)} documents are both given and to be deleted, the first: {min(both)!r}"
        raise DataError(what, where=str(folder), fix="a document that is given replaces the one of its id")


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Wait until no other process updates this index; a killed one lets go."""
    artifacts.sweep(folder)
    if not folder.is_dir():
        artifacts.read(folder, "index")
    with artifacts.alone(folder.with_name(f".{folder.name}.lock")):
        yield
