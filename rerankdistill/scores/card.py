"""Cards of teachers: what one says, and how it is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, PositiveInt, field_validator, model_validator

from rerankdistill.cards import Card, find_card, parse, read_toml
from rerankdistill.devices import Dtype
from rerankdistill.errors import CardError
from rerankdistill.lexical import Lexical
from rerankdistill.types import FloatArray, Scale, View


class Lengths(Card):
    """Where texts are cut, in tokens: the query, the document, and both with the special tokens. None: the model's
    own limit."""

    query: PositiveInt | None = None
    doc: PositiveInt | None = None
    total: PositiveInt | None = None


class _Common(Card):
    name: str = Field(min_length=1)
    description: str = ""
    licence: str = ""
    measured: dict[str, float | str] = Field(default_factory=dict)
    """What somebody measured of it, and on what; decides nothing."""


class ScorerCard(_Common):
    """A teacher that scores by itself.

    Attributes:
        kind: a file of ``scores/kinds``, or ``package.module:Class``.
        model: a Hugging Face id, a folder, or ``package:NAME/PATH``; empty for a kind without a model.
        revision: a commit or tag of the model; ``main`` is fingerprinted by the commit it is cached at.
        view: what the teacher reads of a document.
        options: what the kind alone understands; checked by its ``Options``.
    """

    kind: str
    model: str = ""
    revision: str = "main"
    view: View = View.TITLE_TEXT
    scale: Scale
    lengths: Lengths = Lengths()
    dtype: Dtype = "auto"
    options: dict[str, Any] = Field(default_factory=dict)

    @field_validator("scale")
    @classmethod
    def _raw(cls, scale: Scale) -> Scale:
        if scale is Scale.ZSCORE:
            raise ValueError("a scorer's raw scores are never z-scores; an ensemble makes them")
        return scale

    def require_scale(self, scale: Scale) -> None:
        """Raises CardError where the card claims another scale than its kind gives."""
        if self.scale is not scale:
            what = f"scale = {str(self.scale)!r}, but kind {self.kind!r} gives scores of scale {str(scale)!r}"
            raise CardError(what, where=f"teacher {self.name!r}", fix=f"write scale = {str(scale)!r}")

    @property
    def members(self) -> tuple[str, ...]:
        """The cards of the scorers whose raw scores are stored: itself."""
        return (self.name,)

    @property
    def pinned_revision(self) -> str | None:
        """What to ask a library for; None for whatever ``main`` is."""
        return None if self.revision in ("", "main") else self.revision


class EnsembleCard(_Common):
    """Several scorers taken together. It has no scores of its own: each member's raw scores are stored, and they are
    combined over the complete list when examples are built.

    Attributes:
        members: names or paths of scorers' cards.
        combine: ``zscore``: each member's list is standardised first; ``raw``: a plain mean, of one scale only.
        weights: one a member, positive; empty: all equal.
    """

    kind: Literal["ensemble"]
    members: tuple[str, ...] = Field(min_length=2)
    combine: Literal["zscore", "raw"] = "zscore"
    weights: tuple[float, ...] = ()

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.weights and len(self.weights) != len(self.members):
            raise ValueError(f"{len(self.weights)} weights for {len(self.members)} members")
        if any(not 0 < weight < float("inf") for weight in self.weights):
            raise ValueError("weights must be positive")
        if len(set(self.members)) < len(self.members):
            raise ValueError("a member is named twice; give it a weight instead")
        return self


TeacherCard = ScorerCard | EnsembleCard


@dataclass(frozen=True)
class Context:
    """What a kind's ``open`` may need besides its card; each kind takes what it needs.

    Attributes:
        base: where relative paths of a card start.
        lexical: gives an opened BM25 index and its doc_ids in order, built when first asked for.
        doc_vectors: doc_ids and their vectors ``[n, d]`` by the very encoder that the card names, for the same view.
    """

    device: str = "auto"
    base: Path = Path()
    lexical: Callable[[], tuple[Lexical, Sequence[str]]] | None = None
    doc_vectors: tuple[Sequence[str], FloatArray] | None = None


def load_teacher(name: str) -> TeacherCard:
    """Read a teacher's card by its shipped name, or from a ``.toml`` file.

    Raises:
        CardError: no such card, or mistakes in it, all at once.
    """
    path = find_card("teachers", name)
    return parse_teacher(read_toml(path), str(path))


def parse_teacher(data: Mapping[str, Any], where: str) -> TeacherCard:
    """Check the table of a card. Raises CardError."""
    if data.get("kind") == "ensemble":
        return parse(EnsembleCard, data, where)
    return parse(ScorerCard, data, where)


def load_members(name: str) -> list[ScorerCard]:
    """The cards of the scorers behind a teacher: of itself, or of an ensemble's members, in order.

    A member may be a path relative to the ensemble's own card.

    Raises:
        CardError: a member is no card, is an ensemble itself, or has another scale where raw scores are averaged.
    """
    path = find_card("teachers", name)
    card = parse_teacher(read_toml(path), str(path))
    if isinstance(card, ScorerCard):
        return [card]
    found: list[ScorerCard] = []
    for member in card.members:
        beside = path.parent / member
        each = load_teacher(str(beside) if beside.suffix == ".toml" and beside.is_file() else member)
        if isinstance(each, EnsembleCard):
            fix = f"name its members instead: {', '.join(each.members)}"
            raise CardError(f"member {member!r} is an ensemble itself", where=str(path), fix=fix)
        found.append(each)
    names = [each.name for each in found]
    if len(set(names)) < len(names):
        raise CardError(f"two members have the same name: {', '.join(names)}", where=str(path))
    scales = sorted({each.scale for each in found})
    if card.combine == "raw" and len(scales) > 1:
        what = f"combine = 'raw' would average scores of different scales: {', '.join(scales)}"
        raise CardError(what, where=str(path), fix="use combine = 'zscore'")
    return found


def teacher_scale(name: str) -> Scale:
    """The scale of what a teacher gives to the examples: of an ensemble, ``zscore`` or that of its members."""
    card = load_teacher(name)
    if isinstance(card, ScorerCard):
        return card.scale
    return Scale.ZSCORE if card.combine == "zscore" else load_members(name)[0].scale
