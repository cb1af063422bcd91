"""What the kinds share that are one model of Hugging Face's, read in this process: how it is named, opened and told."""

from __future__ import annotations

from functools import cached_property
from typing import Any, ClassVar, Generic, Self, TypeVar

from rerankdistill import devices
from rerankdistill.artifacts import fingerprint
from rerankdistill.cards import Card, parse
from rerankdistill.scores.card import Context, Lengths, ScorerCard
from rerankdistill.types import Scale, View

O = TypeVar("O", bound=Card)  # noqa: E741


class ModelKind(Generic[O]):
    """A teacher by Hugging Face id, folder, or ``package:NAME/PATH``; its :attr:`model` is loaded when first asked.

    A kind's ``scale`` is a class attribute, or set from its options when it is made.
    """

    Options: ClassVar[type[Any]]
    kind: ClassVar[str]
    """Stands for the kind in fingerprints."""
    needs_texts = True
    memory: ClassVar[frozenset[str]] = frozenset({"token_budget"})
    """Options that decide memory and speed, and no score."""
    scale: Scale

    def __init__(
        self,
        model: str,
        revision: str | None = None,
        view: View = View.TITLE_TEXT,
        lengths: Lengths | None = None,
        options: O | None = None,
        device: str = "auto",
        dtype: devices.Dtype = "auto",
    ) -> None:
        self.name, self.revision, self.view = model, revision, view
        self.lengths = lengths or Lengths()
        self.options: O = options or self.Options()
        self._device, self._dtype = device, dtype

    @classmethod
    def open(cls, card: ScorerCard, context: Context) -> Self:
        """The teacher of a card. Raises CardError: mistakes in its options, or another scale than the kind gives."""
        options = parse(cls.Options, card.options, f"{card.name}: options")
        found = cls(card.model, card.pinned_revision, card.view, card.lengths, options, context.device, card.dtype)
        card.require_scale(found.scale)
        return found

    @cached_property
    def device(self) -> devices.Device:
        return devices.choose(self._device, self._dtype)

    @cached_property
    def model(self) -> Any:
        """The loaded model; each kind says of what class."""
        raise NotImplementedError

    @cached_property
    def fingerprint(self) -> str:
        """Of the model's weights or commit, the lengths, the dtype, the view, and the options that decide a score."""
        from rerankdistill.encoding import fetched_fingerprint

        mark = fetched_fingerprint(self.name, self.revision, lambda: self.model)
        options = self.options.model_dump(exclude=set(self.memory))
        decisive = (options,) if options else ()
        return fingerprint(self.kind, mark, self.lengths.model_dump(), self.device.dtype, self.view, *decisive)
