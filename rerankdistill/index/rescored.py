"""What the kinds share that search twice: something small proposes, the whole vectors decide.

The small index lies in memory, the whole vectors on disk, memory-mapped: of them a search reads what was proposed. A
document that the small index does not propose is missed; one that is proposed gets its exact inner product. A kind
says what the small index is, and what goes into it.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, ValidationError

from rerankdistill.cards import Card
from rerankdistill.index import vectors
from rerankdistill.index.ids import DocIds, damaged, open_ids, save_ids
from rerankdistill.types import FloatArray, IntArray

WHOLE, OPTIONS = "vectors.npy", "options.json"


class RescoreOptions(Card):
    """How much is looked at twice, and how it is kept.

    Attributes:
        factor: documents proposed for each one that is asked for.
        least: documents proposed at least, so that a shallow search is the head of a deeper one.
        dtype: of the whole vectors on disk.
    """

    factor: int = Field(default=10, ge=1)
    least: int = Field(default=1000, ge=1)
    dtype: Literal["float16", "float32"] = "float32"


class Rescored:
    """Builds, opens, updates and searches such an index; a kind adds :meth:`small` and :meth:`coded`."""

    accepts: Literal["texts", "vectors"] = "vectors"
    mapped: tuple[str, ...] = (WHOLE,)
    Options: ClassVar[type[RescoreOptions]] = RescoreOptions

    def __init__(self, index: Any, whole: FloatArray, ids: DocIds, options: Any) -> None:
        self.ids, self._index, self._whole, self._options = ids, index, whole, options

    @staticmethod
    def small(content: Any, options: Any) -> tuple[Any, Any]:
        """(an empty faiss index for these documents, the options with what had to be learnt of them)."""
        raise NotImplementedError

    @staticmethod
    def coded(block: FloatArray, options: Any, *, query: bool) -> Any:
        """What the small index is filled (or searched) with for ``[k, d]`` float32 vectors."""
        raise NotImplementedError

    @classmethod
    def build(cls, folder: Path, doc_ids: Sequence[str], content: Any, options: Any, device: str = "auto") -> None:
        """``content``: ``[n, d]``, also memory-mapped."""
        vectors.check(doc_ids, content, device)
        index, options = cls.small(content, options)
        cls._write(folder, index, [content], options)
        save_ids(folder, doc_ids)

    @classmethod
    def update(
        cls,
        folder: Path,
        source: Path,
        gone: Collection[str],
        doc_ids: Sequence[str],
        content: Any,
        device: str = "auto",
    ) -> None:
        """See :func:`rerankdistill.index.update.update_index`."""
        found = cls.open(source, device)
        stay = found.ids.others(gone)
        vectors.check_fit(content, doc_ids, found._whole.shape[1])
        vectors.forget(found._index, np.setdiff1d(np.arange(len(found.ids)), stay))
        kept = vectors.Part(found._whole, stay)
        cls._write(folder, found._index, [kept, content], found._options, filled=1)
        save_ids(folder, found.ids.after(stay, doc_ids))

    @classmethod
    def _write(cls, folder: Path, index: Any, parts: Sequence[Any], options: Any, filled: int = 0) -> None:
        """Write the whole vectors of every part, and add those after the first ``filled`` to the small index."""
        shape = (sum(len(part) for part in parts), int(parts[0].shape[1]))
        kept = np.lib.format.open_memmap(folder / WHOLE, mode="w+", dtype=options.dtype, shape=shape)
        at = 0
        for number, part in enumerate(parts):
            for start in range(0, len(part), vectors.BLOCK):
                block = np.ascontiguousarray(part[start : start + vectors.BLOCK], np.float32)
                kept[at : at + len(block)] = block
                at += len(block)
                if number >= filled:
                    index.add(cls.coded(block, options, query=False))
        kept.flush()
        vectors.write_index(index, folder)
        (folder / OPTIONS).write_text(options.model_dump_json(), "utf-8")

    @classmethod
    def open(cls, folder: Path, device: str = "auto") -> Self:
        vectors.gpu_number(device)
        ids = open_ids(folder)
        try:
            options = cls.Options.model_validate(json.loads((folder / OPTIONS).read_text("utf-8")))
        except (OSError, ValueError, ValidationError) as error:
            raise damaged(folder / OPTIONS, error) from error
        try:
            whole = np.load(folder / WHOLE, mmap_mode="r")
        except (OSError, ValueError, EOFError) as error:
            raise damaged(folder / WHOLE, error) from error
        if whole.ndim != 2 or len(whole) != len(ids):
            raise damaged(folder / WHOLE, ValueError(f"vectors of shape {whole.shape} for {len(ids)} doc_ids"))
        return cls(vectors.read_index(folder, ids), whole, ids, options)

    def search(self, queries: FloatArray, depth: int) -> list[list[tuple[str, float]]]:
        """``[q, d]`` vectors to at most ``depth`` (doc_id, inner product) a query."""
        matrix = vectors.check_queries(queries, self._whole.shape[1])
        fetch = min(len(self.ids), max(self._options.least, self._options.factor * depth))

        def propose(some: FloatArray, _: int) -> tuple[FloatArray, IntArray]:
            found: tuple[FloatArray, IntArray] = self._index.search(self.coded(some, self._options, query=True), fetch)
            return found

        return vectors.search(propose, self._whole, self.ids, matrix, depth, widen=False)
