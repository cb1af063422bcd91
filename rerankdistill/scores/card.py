"""Cards of teachers: what one says, and how it is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

from pydantic import (
    Field,
    PositiveInt,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from rerankdistill.cards import Card, find_card, parse, read_toml
from rerankdistill.contracts import Teacher
from rerankdistill.devices import Dtype
from rerankdistill.errors import CardError
from rerankdistill.lexical import Lexical
from rerankdistill.types import FloatArray, Scale, View

YOUNGER = {"rank_to_score", "calibrate", "percentiles", "weights_by"}
"""Fields that came after the first cards had been fingerprinted."""
ABOUT_EXAMPLES = {"rank_to_score", "calibrate", "percentiles"}
"""Fields that say what examples make of the scores, and nothing of the scores themselves."""


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
    rank_to_score: Literal["reciprocal", "depth"] | None = None
    """Makes numbers of an order, where examples are built: 1 / rank, or the number of documents below and itself."""
    calibrate: Literal["raw", "zscore", "percentile", "two_logit", "temperature"] = "raw"
    """What becomes of the scores where examples are built; see :mod:`rerankdistill.examples.calibrate`."""
    percentiles: tuple[float, float] = (1.0, 99.0)
    """What ``percentile`` moves to 0 and 1."""

    @field_validator("percentiles")
    @classmethod
    def _rising(cls, percentiles: tuple[float, float]) -> tuple[float, float]:
        if not 0 <= percentiles[0] < percentiles[1] <= 100:
            raise ValueError("percentiles are two rising numbers from 0 to 100")
        return percentiles

    @model_serializer(mode="wrap")
    def _said(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """What the card says beyond the defaults of younger fields: an old card keeps its fingerprint."""
        table: dict[str, Any] = handler(self)
        fields = type(self).model_fields
        return {k: v for k, v in table.items() if k not in YOUNGER or getattr(self, k) != fields[k].default}


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
        combine: ``zscore``: each member's list is standardised first; ``raw``: a plain mean, of one scale only;
            ``rrf``: reciprocal ranks are added, which takes any scales and gives an order (scale ``rank``).
        weights: one a member, positive; empty: all equal.
        weights_by: ``agreement``: they are multiplied, for each query with training labels, by how well the member
            ranks its labelled documents (nDCG), and by the mean of that over such queries for the others.
    """

    kind: Literal["ensemble"]
    members: tuple[str, ...] = Field(min_length=2)
    combine: Literal["zscore", "raw", "rrf"] = "zscore"
    weights: tuple[float, ...] = ()
    weights_by: Literal["card", "agreement"] = "card"

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
        texts: what a teacher of this view reads of documents, by their ids, for one that scores whole batches.
        open_card: opens another scorer, for a kind that stands before one.
    """

    device: str = "auto"
    base: Path = Path()
    lexical: Callable[[], tuple[Lexical, Sequence[str]]] | None = None
    doc_vectors: tuple[Sequence[str], FloatArray] | None = None
    open_card: Callable[[ScorerCard], Teacher] | None = None
    texts: Callable[[Sequence[str]], Sequence[str]] | None = None


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


class Placed(NamedTuple):
    """A scorer's card and the folder that it lies in, where its relative paths start."""

    card: ScorerCard
    base: Path


def load_members(name: str) -> list[ScorerCard]:
    """The cards of the scorers behind a teacher; see :func:`load_placed`."""
    return [placed.card for placed in load_placed(name)]


def load_placed(name: str, others: Callable[[str], ScorerCard | None] = lambda _: None) -> list[Placed]:
    """The scorers behind a teacher: itself, or an ensemble's members, in order.

    A member may be a path relative to the ensemble's own card.

    Args:
        others: gives the card of a member that is none on the shelf and no file.

    Raises:
        CardError: a member is no card, is an ensemble itself, or has a scale that cannot be combined so.
    """
    path = find_card("teachers", name)
    card = parse_teacher(read_toml(path), str(path))
    if isinstance(card, ScorerCard):
        return [Placed(card, path.parent)]
    found: list[Placed] = []
    for member in card.members:
        if other := others(member):
            found.append(Placed(other, path.parent))
            continue
        beside = path.parent / member
        place = find_card("teachers", str(beside) if beside.suffix == ".toml" and beside.is_file() else member)
        each = parse_teacher(read_toml(place), str(place))
        if isinstance(each, EnsembleCard):
            fix = f"name its members instead: {', '.join(each.members)}"
            raise CardError(f"member {member!r} is an ensemble itself", where=str(path), fix=fix)
        found.append(Placed(each, place.parent))
    _check_members(card, [placed.card for placed in found], str(path))
    return found


def _check_members(card: EnsembleCard, members: Sequence[ScorerCard], where: str) -> None:
    names = [each.name for each in members]
    if len(set(names)) < len(names):
        raise CardError(f"two members have the same name: {', '.join(names)}", where=where)
    if odd := [each.name for each in members if ABOUT_EXAMPLES & each.model_fields_set]:
        what = f"{', '.join(odd)} says how to calibrate, which an ensemble decides for all its members"
        raise CardError(what, where=where, fix="write it in the ensemble's card, or drop it from the member's")
    scales = sorted({each.scale for each in members})
    if Scale.RANK in scales and card.combine != "rrf" and not card.rank_to_score:
        ranked = ", ".join(each.name for each in members if each.scale is Scale.RANK)
        what = f"combine = {card.combine!r} needs numbers, and {ranked} only gives an order"
        fix = "use combine = 'rrf', or make numbers of it with rank_to_score = 'reciprocal' (or 'depth')"
        raise CardError(what, where=where, fix=fix)
    if card.combine == "raw" and len(scales) > 1:
        what = f"combine = 'raw' would average scores of different scales: {', '.join(scales)}"
        raise CardError(what, where=where, fix="use combine = 'zscore' (or 'rrf')")


def teacher_scale(name: str) -> Scale:
    """The scale of what a teacher gives to the examples: a member's own, or what combining and calibrating make of it.

    Agrees with :func:`rerankdistill.examples.build.example_scale`, which also says why something cannot be.
    """
    card = load_teacher(name)
    scale = card.scale if isinstance(card, ScorerCard) else load_members(name)[0].scale
    if isinstance(card, EnsembleCard) and card.combine != "raw":
        scale = Scale.ZSCORE if card.combine == "zscore" else Scale.RANK
    if scale is Scale.RANK and card.rank_to_score:
        scale = Scale.GRADE
    made = {"zscore": Scale.ZSCORE, "percentile": Scale.GRADE, "two_logit": Scale.LOGIT}
    return made.get(card.calibrate, scale)
