"""A query encoder in front of an index that stays: only queries are learnt, documents are read by a model that never
changes.

The document vectors of a collection are then made once, whatever is trained: lists of a hundred documents cost a step
no more than lists of two, students share one index, and a deployed index is kept when its query encoder is replaced
by a smaller or a better one (as DiSCo freezes its documents, arXiv:2410.14609). Saved as a plain sentence-transformers
folder with a ``Router``: ``encode_query`` and ``encode_document`` take the two towers.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import field_validator

from rerankdistill import devices
from rerankdistill.artifacts import fingerprint
from rerankdistill.contracts import Reading
from rerankdistill.encoding import TextEncoder, load_bi_encoder, locate, model_fingerprint, towers
from rerankdistill.errors import CardError
from rerankdistill.students.bridge import DOCUMENTS, Start, add_bridge, before_bridge, fit_bridge
from rerankdistill.students.kinds import bi_encoder
from rerankdistill.students.readings import compared
from rerankdistill.types import FloatArray

if TYPE_CHECKING:
    from rerankdistill.contracts import Role
    from rerankdistill.encoding import Progress
    from rerankdistill.students.batch import Budget, ListBatch


MANY = 20
"""Lists have so many places for each document that a projection is fitted to."""


class QueryTowerOptions(bi_encoder.BiEncoderOptions):
    """What the query encoder is made from, and who reads the documents."""

    docs: str = ""
    """The model that reads documents; empty: ``init``, with all its layers."""
    projection: Start | None = None
    """Put a linear map behind the query encoder, to the documents' dimension, for towers of two widths or of two
    makes: ``"least_squares"`` begins with what fits some documents best, ``"orthogonal"`` with what stretches
    nothing. It is learnt with the encoder."""

    @field_validator("doc_prefix")
    @classmethod
    def _documents_stay(cls, prefix: str | None) -> str | None:
        if prefix is not None:
            raise ValueError("documents are read as their own model reads them; leave doc_prefix out")
        return prefix


class Both:
    """The two towers as one :class:`rerankdistill.contracts.Encoder`."""

    def __init__(self, queries: TextEncoder, docs: TextEncoder) -> None:
        self._sides: dict[str, TextEncoder] = {"query": queries, "doc": docs}
        self.model, self.dimension = queries.model, docs.dimension
        self.fingerprint = fingerprint("towers", queries.fingerprint, docs.fingerprint)

    def encode(self, texts: Sequence[str], role: Role, progress: Progress | None = None) -> FloatArray:
        """As :meth:`rerankdistill.encoding.TextEncoder.encode`."""
        return self._sides[role].encode(texts, role, progress)

    def similarity(self, queries: FloatArray, docs: FloatArray) -> FloatArray:
        """As :meth:`rerankdistill.encoding.TextEncoder.similarity`."""
        return queries @ docs.T


class Kind(bi_encoder.Kind):
    """See the module. ``documents``, where it is set, gives the vectors of documents by id, ``[n, d]``; without it they
    are encoded as they come."""

    Options = QueryTowerOptions
    gives = frozenset({"docs"})

    def __init__(self, queries: Any, docs: Any, options: QueryTowerOptions, device: devices.Device) -> None:
        super().__init__(queries, options, device)
        self._docs, self._doc_tokens = docs, options.doc_tokens
        width, theirs = self._encoder.dimension, int(docs.get_embedding_dimension())
        if width != theirs:
            what = f"queries get {width} dimensions and documents {theirs}"
            fix = "set projection = 'least_squares', or take models of one width"
            raise CardError(what, where="students: docs", fix=fix)
        docs.requires_grad_(False)
        self.fitted = True
        """Whether its projection is what it should begin with."""
        self.documents: Callable[[Sequence[str]], FloatArray] | None = None

    @cached_property
    def _reader(self) -> TextEncoder:
        """The documents' model; it takes no room on the device before it is asked."""
        return TextEncoder(self._docs, "frozen", self.device, {"doc": self._doc_tokens})

    @classmethod
    def create(cls, options: bi_encoder.BiEncoderOptions, device: str = "auto") -> Kind:
        """A new query encoder, before the documents' model."""
        asked = QueryTowerOptions.model_validate(options.model_dump())
        queries = cls.network_of(asked)
        docs = towers(load_bi_encoder(*cls.docs_reference(asked)))["doc"]
        if docs.similarity_fn_name != asked.similarity:
            what = f"the documents' model compares by {docs.similarity_fn_name}, not by {asked.similarity}"
            fix = f"set similarity = {str(docs.similarity_fn_name)!r}: its vectors stay as they are"
            raise CardError(what, where="students: similarity", fix=fix)
        if asked.projection:
            add_bridge(queries, int(docs.get_embedding_dimension()))
        student = cls(queries, docs, asked, devices.choose(device))
        student.fitted = asked.projection != "least_squares"
        return student

    @classmethod
    def open(cls, folder: Path, options: bi_encoder.BiEncoderOptions, device: str = "auto") -> Kind:
        """A student that :meth:`save` wrote."""
        asked = QueryTowerOptions.model_validate(options.model_dump())
        sides = towers(load_bi_encoder(str(folder)))
        return cls(sides["query"], sides["doc"], asked, devices.choose(device))

    @staticmethod
    def docs_reference(options: QueryTowerOptions) -> tuple[str, str | None]:
        """The documents' model and its revision."""
        return (options.docs, None) if options.docs else (options.init, options.revision)

    @classmethod
    def source_fingerprint(cls, options: bi_encoder.BiEncoderOptions) -> str:
        asked = QueryTowerOptions.model_validate(options.model_dump())
        docs, revision = cls.docs_reference(asked)
        return fingerprint(model_fingerprint(locate(asked.init), asked.revision), model_fingerprint(docs, revision))

    def prepare(self, data: Any) -> None:
        """Fit a new projection to some of the documents that a stage asks about."""
        import torch

        if self.fitted:
            return
        names = (doc_id for example in data.examples for doc_id in example.doc_ids)
        doc_ids = list(dict.fromkeys(itertools.islice(names, MANY * DOCUMENTS)))[:DOCUMENTS]
        texts = data.texts(doc_ids)
        limit = {"query": self._encoder.max_tokens["query"]}
        encoder = TextEncoder(before_bridge(self.network), "bridge", self.device, limit)
        before = torch.from_numpy(encoder.encode(texts, "query"))
        fit_bridge(self.network, before, torch.tensor(self._vectors_of(doc_ids, texts)))
        self.fitted = True

    def _vectors_of(self, doc_ids: Sequence[str], texts: Sequence[str]) -> FloatArray:
        return self.documents(doc_ids) if self.documents else self._reader.encode(texts, "doc")

    def _write(self, folder: Path) -> None:
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.base.modules import Router

        docs = self._docs
        router = Router.for_query_document(
            list(self.network.children()), list(docs.children()), default_route=None, allow_empty_key=False
        )
        prompts = {"query": self.network.prompts.get("query", ""), "document": docs.prompts.get("document", "")}
        place = str(next(self.network.parameters()).device)
        similarity = self.network.similarity_fn_name
        both = SentenceTransformer(modules=[router], device=place, prompts=prompts, similarity_fn_name=similarity)
        both.save_pretrained(str(folder), create_model_card=False)

    def read(self, batch: ListBatch, budget: Budget, needs: frozenset[str]) -> list[Reading]:
        """``[b, m]``, in each of the ways; the gradient reaches the queries alone."""
        import torch

        queries = self._layered(batch.queries, "query", budget, any(way.depth for way in self.ways))
        docs = torch.tensor(self._vectors_of(batch.doc_ids, batch.docs), dtype=queries.dtype, device=queries.device)
        return compared(queries, docs[:, None], self.ways, self._cosine, "docs" in needs)

    def encoder(self) -> Any:
        """Both towers for inference."""
        self.network.eval()
        return Both(self._encoder, self._reader)
