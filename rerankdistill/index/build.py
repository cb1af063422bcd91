"""The door of the index room: a card, documents and a kind become a folder that can be searched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from rerankdistill import artifacts, cards
from rerankdistill.cards import Card
from rerankdistill.contracts import Index
from rerankdistill.errors import DamagedArtifact, DataError, StaleArtifact, UsageError
from rerankdistill.index import seal
from rerankdistill.representations import count
from rerankdistill.types import View

FORMAT = 1
TRIES = 20
"""How often an index is opened again that was replaced while it was being opened."""


class IndexCard(Card):
    """A recipe for an index.

    Attributes:
        kind: the name of a module in ``index/kinds``, or ``package.module:Class``.
        view: what is indexed of a document: ``title+text`` or ``text``.
        options: the kind's own, checked against its ``Options``.
        expect: figures that this recipe is known to reach, ``{"scifact/test ndcg@10" = 0.67}``.
    """

    kind: str
    description: str = ""
    view: View = View.TITLE_TEXT
    options: dict[str, Any] = Field(default_factory=dict)
    expect: dict[str, float] = Field(default_factory=dict)


def read_card(name: str) -> IndexCard:
    """A shipped card by its name, or a card by the path of its file. Raises CardError with every mistake."""
    path = cards.find_card("indexes", name)
    return cards.parse(IndexCard, cards.read_toml(path), str(path))


def options_of(card: IndexCard, kind_class: Any) -> Any:
    """The kind's options with their defaults filled in. Raises CardError with every mistake."""
    return cards.parse(kind_class.Options, card.options, f"index kind {card.kind!r}, options")


def plan_index(card: IndexCard, inputs: Mapping[str, str], kind_class: Any) -> artifacts.Manifest:
    """The manifest that an index built from these would have: what makes it fresh or stale.

    Description, expectations and device decide nothing; defaults of the options do.
    """
    options = options_of(card, kind_class).model_dump(mode="json")
    decides = {"kind": card.kind, "view": str(card.view), "options": options}
    return artifacts.plan("index", FORMAT, decides, inputs)


def build_index(
    folder: Path,
    card: IndexCard,
    doc_ids: Sequence[str],
    content: Any,
    inputs: Mapping[str, str],
    kind_class: Any,
    device: str = "auto",
) -> artifacts.Manifest:
    """Build an index, whole or not at all.

    Args:
        content: what the kind ``accepts``, one for each document (memory-mapped ones too).
        inputs: fingerprints: ``docs`` of the collection, and ``encoder`` where it is filled with vectors.
        kind_class: what ``open_kind("index", card.kind)`` gave.

    Raises:
        DataError: no documents, an id twice, another number of contents than ids, NaN in a vector.
        CardError: an option that the kind does not know.
    """
    if kind_class.accepts != "texts" and "encoder" not in inputs:
        raise UsageError(f"index kind {card.kind!r} is filled by an encoder, and none is named", where=str(folder))
    manifest = plan_index(card, inputs, kind_class)
    with artifacts.write(folder, manifest) as staging:
        manifest.counts = fill_index(staging, card, doc_ids, content, kind_class, device)
    return manifest


def fill_index(
    folder: Path, card: IndexCard, doc_ids: Sequence[str], content: Any, kind_class: Any, device: str = "auto"
) -> dict[str, int]:
    """Write an index into an empty folder whose manifest somebody else writes; see :func:`build_index`.

    Returns:
        ``documents`` and ``bytes``.
    """
    if count(content) != len(doc_ids):
        raise DataError(f"{count(content)} {kind_class.accepts} for {len(doc_ids)} documents", where=str(folder))
    kind_class.build(folder, doc_ids, content, options_of(card, kind_class), device=device)
    return {"documents": len(doc_ids), "bytes": sealed(folder, kind_class)}


def sealed(folder: Path, kind_class: Any) -> int:
    """Note what every file of a finished index is (:mod:`rerankdistill.index.seal`); gives their bytes together."""
    seal.seal(folder, getattr(kind_class, "living", ()))
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def index_kind(folder: Path) -> str:
    """The kind of an index that is there, for ``open_kind``. Raises MissingArtifact, DamagedArtifact."""
    return str(artifacts.read(folder, "index").card["kind"])


def open_index(folder: Path, kind_class: Any, device: str = "auto", expect_encoder: str | None = None) -> Index:
    """Open an index; ``expect_encoder`` is the fingerprint of the encoder whose vectors will search it.

    What is opened is one snapshot: an update that ends meanwhile is seen whole or not at all.

    Raises:
        MissingArtifact, DamagedArtifact: not there, or not whole.
        StaleArtifact: it was filled by another encoder, whose vectors mean something else.
    """
    for _ in range(TRIES):
        before = _number(folder)
        try:
            index = _open(folder, kind_class, device, expect_encoder)
        except DamagedArtifact:
            if _number(folder) == before:
                raise
            continue  # the next snapshot took its place half-way
        if _number(folder) == before:
            return index
    what = "this index changes faster than it can be opened"
    raise DamagedArtifact(what, where=str(folder), fix="update it less often")


def _open(folder: Path, kind_class: Any, device: str, expect_encoder: str | None) -> Index:
    filled_by = artifacts.read(folder, "index").inputs.get("encoder")
    if expect_encoder is not None and filled_by != expect_encoder:
        raise StaleArtifact(
            f"this index was filled by encoder {filled_by}, and would be searched by encoder {expect_encoder}",
            where=str(folder),
            fix="build the index again with this encoder, or search it with the one that filled it",
        )
    seal.check(folder, getattr(kind_class, "mapped", ()))
    index: Index = kind_class.open(folder, device)
    return index


def _number(folder: Path) -> tuple[int, int]:
    """What tells one folder of a name from the next one."""
    found = folder.stat() if folder.exists() else None
    return (found.st_ino, found.st_mtime_ns) if found else (0, 0)
