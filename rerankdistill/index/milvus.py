"""Milvus by pymilvus: a client of a cluster, or of Milvus Lite in this process over a folder.

Milvus Lite locks its folder, writes into it when it opens it, and is known by its path as long as the process lives. So
each opening works in a temporary folder of hard links (its files are never written twice, but replaced): an index can
be open in several processes, stays as it was sealed, and an older snapshot reads on when the next takes its place.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rerankdistill import artifacts
from rerankdistill.errors import ArtifactError, DamagedArtifact
from rerankdistill.kinds import missing

FOLDER = "milvus.db"
LOCK = "LOCK"
TOKEN = "RERANKDISTILL_MILVUS_TOKEN"  # noqa: S105  the name of an environment variable
"""The environment variable that holds a cluster's token (``user:password`` or an API key)."""


def pymilvus() -> Any:
    """The module. Raises MissingDependency with the command that brings it."""
    try:
        import milvus_lite  # noqa: F401  pymilvus finds out too late that it is missing
        import pymilvus
    except ModuleNotFoundError as error:
        raise missing(error, "index kind 'milvus'") from error
    return pymilvus


def cluster(uri: str) -> Any:
    """A client of the Milvus at an address. Raises ArtifactError: it does not answer."""
    module = pymilvus()
    try:
        return module.MilvusClient(uri=uri, token=os.environ.get(TOKEN, ""), timeout=10)
    except module.MilvusException as error:
        fix = f"check that Milvus runs there; a token is read from {TOKEN}"
        raise ArtifactError(f"Milvus does not answer: {error.message}", where=uri, fix=fix) from error


@contextmanager
def writing(folder: Path) -> Iterator[Any]:
    """A client of the Milvus Lite whose files lie in an index's folder, or will; everything is in them at the end."""
    client = _lite(folder / FOLDER)
    try:
        yield client
    finally:
        close(client, folder / FOLDER)
        for lock in (folder / FOLDER).rglob(LOCK):
            lock.unlink()


class Snapshot:
    """A Milvus Lite over hard links to the files of an index, in a temporary folder that goes with it."""

    def __init__(self, folder: Path) -> None:
        self._place = Path(tempfile.mkdtemp(prefix="rerankdistill-milvus-"))
        try:
            copy(folder / FOLDER, self._place / FOLDER)
            self.client = _lite(self._place / FOLDER)
        except BaseException:
            shutil.rmtree(self._place, ignore_errors=True)
            raise

    def close(self) -> None:
        close(self.client, self._place / FOLDER)
        shutil.rmtree(self._place, ignore_errors=True)


def copy(source: Path, place: Path) -> None:
    """A second copy of a Milvus Lite's folder, of hard links where they are possible."""

    if not source.is_dir():
        raise DamagedArtifact("this part of the index is missing", where=str(source), fix="build the index again")
    shutil.copytree(
        source,
        place,
        copy_function=lambda one, other: artifacts.link(Path(one), Path(other)),
        ignore=shutil.ignore_patterns(LOCK),
    )


def close(client: Any, path: Path) -> None:
    """End a Milvus Lite, so that its files are whole and nobody holds them."""
    from milvus_lite.server_manager import server_manager_instance

    client.close()
    server_manager_instance.release_server(str(path))


def _lite(path: Path) -> Any:
    module = pymilvus()
    try:
        return module.MilvusClient(str(path))
    except module.MilvusException as error:
        fix = "delete the index; the next run builds it again"
        raise DamagedArtifact(f"Milvus Lite cannot open it: {error.message}", where=str(path), fix=fix) from error
