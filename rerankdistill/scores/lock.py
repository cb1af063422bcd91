"""One writer at a time: an advisory lock that the operating system drops when its holder dies, however it dies."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from rerankdistill.errors import ArtifactError


class WriteLock:
    """Holds ``folder/lock``.

    Raises:
        ArtifactError: another process holds it; says which.
    """

    def __init__(self, folder: Path) -> None:
        self._descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(self._descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(self._descriptor)
            what = f"another process (pid {holder}) is writing these scores"
            fix = "wait for it, or stop it: whatever it has scored is kept"
            raise ArtifactError(what, where=str(folder), fix=fix) from error
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
