"""What the steps of one pipeline share while they run: the folder, the collection, opened models and kinds."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rerankdistill import cards
from rerankdistill.collections.load import load_collection
from rerankdistill.contracts import Source
from rerankdistill.encoding import TextEncoder, model_fingerprint, open_encoder
from rerankdistill.kinds import open_kind
from rerankdistill.pipeline.card import EvaluateCard, PipelineCard, own_collection
from rerankdistill.pipeline.step import Notes, Quiet

if TYPE_CHECKING:
    from rerankdistill.pipeline.chain import School


class Workspace:
    """A pipeline's card, its output folder and what is open."""

    def __init__(self, card: PipelineCard, root: Path, notes: Notes | None = None) -> None:
        self.card, self.root, self.notes = card, root, notes or Quiet()
        self.school: School | None = None
        """Where students are trained that teach others; set where the pipeline's students are known."""
        self._sources: dict[tuple[str, tuple[tuple[str, str], ...]], Source] = {}
        self._held: dict[Hashable, Any] = {}

    def source(self) -> Source:
        """The collection that the pipeline trains on."""
        return self._source(self.card.collection, self.card.splits)

    def target(self, target: EvaluateCard) -> Source:
        """The collection that an evaluation is on."""
        if own_collection(self.card, target):
            return self._source(self.card.collection, {**self.card.splits, **target.splits})
        return self._source(target.collection, target.splits)

    def _source(self, name: str, splits: dict[str, str]) -> Source:
        key = (name, tuple(sorted(splits.items())))
        if key not in self._sources:
            self._sources[key] = load_collection(name, splits=splits or None)
        return self._sources[key]

    def encoder(
        self, model: str, query_tokens: int = 64, doc_tokens: int = 256, revision: str | None = None
    ) -> TextEncoder:
        """An opened bi-encoder, held."""
        lengths, device = {"query": query_tokens, "doc": doc_tokens}, self.card.device
        opened: TextEncoder = self.held(
            (model, query_tokens, doc_tokens, revision),
            lambda: open_encoder(model, revision=revision, device=device, max_tokens=lengths),
        )
        return opened

    def held(self, key: Hashable, opener: Callable[[], Any]) -> Any:
        """A model that is opened once; the last two stay open."""
        if key not in self._held:
            while len(self._held) > 1:
                self._held.pop(next(iter(self._held)))
            self._held[key] = opener()
        return self._held[key]


@lru_cache
def mark_of(model: str, revision: str | None = None) -> str:
    """A model's fingerprint; hashing a folder of weights is worth remembering."""
    return model_fingerprint(model, revision)


def kind_options(room: str, kind: str, table: dict[str, Any], where: str) -> Any:
    """The options of a kind, checked against its own model."""
    return cards.parse(open_kind(room, kind).Options, table, where)
