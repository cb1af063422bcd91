"""Indexes apart from any pipeline: built of a collection, and kept up with what becomes of its documents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from rerankdistill import artifacts
from rerankdistill.collections.files import lines, read_doc
from rerankdistill.collections.load import load_collection
from rerankdistill.encoding import TextEncoder, open_encoder
from rerankdistill.errors import DataError, MissingArtifact, UsageError
from rerankdistill.index import seal
from rerankdistill.index.build import build_index, index_kind, open_index, read_card
from rerankdistill.index.ids import open_ids
from rerankdistill.index.update import update_index
from rerankdistill.kinds import open_kind
from rerankdistill.pipeline.step import Notes
from rerankdistill.pipeline.workspace import mark_of
from rerankdistill.students.folder import look
from rerankdistill.types import Doc, View


@dataclass(frozen=True)
class Reader:
    """Who makes vectors of documents: a bi-encoder, trained here or elsewhere.

    Attributes:
        query_tokens, doc_tokens: where texts are cut. Of a student that was trained here its own are right.
    """

    model: str
    query_tokens: int = 64
    doc_tokens: int = 256
    device: str = "auto"

    @property
    def mark(self) -> str:
        """What an index says it was filled by: the same as a pipeline writes for this model."""
        try:
            return artifacts.fingerprint("trained", artifacts.read(Path(self.model), "student").fingerprint)
        except MissingArtifact:
            return artifacts.fingerprint(mark_of(self.model), self.query_tokens, self.doc_tokens)

    @cached_property
    def encoder(self) -> TextEncoder:
        lengths = {"query": self.query_tokens, "doc": self.doc_tokens}
        return open_encoder(self.model, device=self.device, max_tokens=lengths)

    def student(self, makes: str) -> Any:
        """A student that makes something else of a text than one vector, ready to encode.

        Args:
            makes: what the index accepts: ``sparse`` or ``tokens``.

        Raises:
            UsageError: the model is no such student.
        """
        found = look(Path(self.model))
        kind = open_kind("students", found.kind)
        options = kind.Options(**{"init": self.model, **found.options})
        own = kind.index_card(options)["kind"] if hasattr(kind, "index_card") else "flat"
        if open_kind("index", own).accepts != makes:
            what = f"a student of kind {found.kind!r} goes into an index of kind {own!r}"
            raise UsageError(what, where=self.model, fix=f"choose another card, or a student that makes {makes}")
        return kind.open(found.path, options, self.device).encoder()


def build(folder: Path, card_name: str, collection: str, reader: Reader | None, notes: Notes) -> dict[str, Any]:
    """Build the index of a card from a collection; gives its counts.

    Raises UsageError: the card's kind needs a model, or one that makes something else than vectors.
    """
    card, source = read_card(card_name), load_collection(collection)
    kind = open_kind("index", card.kind)
    docs = list(source.docs())
    content, encoder = _content(docs, card.view, kind, card.kind, reader, notes)
    inputs = {"docs": source.docs_fingerprint()} | ({"encoder": encoder} if encoder else {})
    device = reader.device if reader else "auto"
    return build_index(folder, card, [doc.doc_id for doc in docs], content, inputs, kind, device).counts


def update(
    folder: Path,
    documents: Path | None,
    delete: Path | None,
    collection: str,
    reader: Reader | None,
    notes: Notes,
) -> dict[str, int]:
    """Add, replace and delete documents of an index; see :func:`rerankdistill.index.update.update_index`.

    Args:
        documents: a file as ``corpus.jsonl`` of a collection, of new documents and of those that changed.
        delete: a file with an id a line.
        collection: the whole collection as it is now, so that the index is known to be of it; or empty.

    Raises:
        DataError: the index would hold other documents than the collection.
    """
    name = index_kind(folder)
    kind, manifest = open_kind("index", name), artifacts.read(folder, "index")
    docs = [read_doc(documents, place, line) for place, line in lines(documents)] if documents else []
    gone = [line.strip() for _, line in lines(delete)] if delete else []
    if not docs and not gone:
        raise UsageError("nothing to do", fix="name --documents, --delete, or both")
    content, encoder = _content(docs, View(str(manifest.card["view"])), kind, name, reader, notes)
    ids = [doc.doc_id for doc in docs]
    mark = _now(collection, docs, ({*open_ids(folder).alive} - {*gone}) | {*ids}) if collection else ""
    texts = artifacts.fingerprint([(doc.doc_id, doc.title, doc.text) for doc in docs])
    return update_index(folder, kind, ids, content, gone, encoder, mark=texts, docs=mark)


def check(folder: Path) -> str:
    """Read every byte of an index and open it; what it is, in a line. Raises DamagedArtifact."""
    kind = open_kind("index", index_kind(folder))
    seal.check(folder, thorough=True)
    open_index(folder, kind)
    counts = artifacts.read(folder, "index").counts
    return f"{folder}: whole; {index_kind(folder)}, {counts['documents']:,} documents, {counts['bytes']:,} bytes"


def _content(
    docs: Sequence[Doc], view: View, kind: Any, name: str, reader: Reader | None, notes: Notes
) -> tuple[Any, str | None]:
    """(what an index of this kind is filled with, the mark of who made it)."""
    texts = [doc.view(view) for doc in docs]
    if kind.accepts == "texts":
        return texts, None
    if reader is None:
        made = {"vectors": "vectors", "sparse": "weights of terms", "tokens": "vectors of tokens"}[kind.accepts]
        raise UsageError(f"an index of kind {name!r} is filled with {made}", fix="name who makes them: --model")
    encoder = reader.encoder if kind.accepts == "vectors" else reader.student(kind.accepts)
    with notes.bar("encoding documents", len(texts)) as advance:
        return encoder.encode(texts, "doc", advance), reader.mark


def _now(collection: str, docs: Sequence[Doc], ids: set[str]) -> str:
    """The fingerprint of a collection's documents, if they are those that the index will hold."""
    source = load_collection(collection)
    there = {*source.doc_ids()}
    if there != ids:
        one = min(there ^ ids)
        where = "the collection alone" if one in there else "the index alone"
        what = f"{len(there ^ ids)} documents differ from the collection's, the first: {one!r} would be in {where}"
        raise DataError(what, where=collection, fix="name what is new or changed in --documents, what went in --delete")
    given = {doc.doc_id: doc for doc in docs}
    for doc in source.docs():
        if doc.doc_id in given and (doc.title, doc.text) != (given[doc.doc_id].title, given[doc.doc_id].text):
            raise DataError(f"document {doc.doc_id!r} has another text in the collection", where=collection)
    return source.docs_fingerprint()


def sample(collection: str, reader: Reader, size: int, notes: Notes) -> Any:
    """``[size, d]`` vectors of documents from all over a collection."""
    import numpy as np

    source = load_collection(collection)
    ids = list(source.doc_ids())
    rows = np.random.default_rng(0).permutation(len(ids))[:size]
    texts = source.texts([ids[row] for row in rows], View.TITLE_TEXT)
    with notes.bar("encoding a sample", len(texts)) as advance:
        return reader.encoder.encode(texts, "doc", advance)
