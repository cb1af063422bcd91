"""Writes queries about a folder in the real pipeline; its writer notes what it is asked, and may die by SIGKILL.

``FOLDER OUT DIES``: after ``DIES`` batches the process kills itself, once the writer has answered and before the
answers are on the disk: the worst moment. 0: never.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rerankdistill.pipeline import adapting
from rerankdistill.pipeline.card import load_pipeline
from rerankdistill.pipeline.reading import AdaptCard, documents_step
from rerankdistill.pipeline.step import Quiet, walk
from rerankdistill.pipeline.workspace import Workspace


class Writer:
    mark = "a writer that counts"

    def __init__(self, side: Path, dies: int) -> None:
        self.side, self.dies, self.batches = side, dies, 0

    def __call__(self, requests: Sequence[Any]) -> list[str]:
        with self.side.open("a", encoding="utf-8") as file:
            file.write("".join(f"{request.query_id}\n" for request in requests))
        self.batches += 1
        if self.batches == self.dies:
            os.kill(os.getpid(), signal.SIGKILL)
        return [f"what is told of {request.doc.title}" for request in requests]


def main(folder: str, out: str, dies: str) -> None:
    root = Path(out)
    card = AdaptCard(docs=folder, styles={"question": 1.0})
    documents = documents_step(root, card, Quiet())
    walk([documents], Quiet())
    pipeline = load_pipeline("adapt").model_copy(update={"collection": str(documents.folder)})
    adapting.open_writer = lambda *_: Writer(root / "asked.txt", int(dies))
    walk([adapting.written_step(Workspace(pipeline, root), card, documents)], Quiet())


main(*sys.argv[1:])
