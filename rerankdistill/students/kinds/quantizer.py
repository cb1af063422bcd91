"""Codebooks for an index of few bytes, learnt from what a dense teacher says of queries and documents.

Documents are encoded once by a model that stays as it is, and kept as codes. What faiss trains is to rebuild vectors;
what is learnt here is to rebuild the teacher's scores: the codewords and the lists' centroids begin as faiss's and move
until the query's product with what they remember of a document orders documents as the teacher does. No labels are
needed. There are two readings: the codes' score, and with lists the centroids' score, which decides what lists a search
opens. Xiao et al. 2022, Distill-VQ, arXiv:2204.00185.

Saved as a plain sentence-transformers folder (:mod:`rerankdistill.students.kinds.query_tower`) and ``codebooks.faiss``,
an index without documents that faiss fills and searches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field, model_validator

from rerankdistill import codebooks
from rerankdistill.cards import Card
from rerankdistill.codebooks import Codebooks, Layout
from rerankdistill.contracts import Reading
from rerankdistill.errors import DataError
from rerankdistill.students.kinds import query_tower
from rerankdistill.types import FloatArray

if TYPE_CHECKING:
    from torch import Tensor

    from rerankdistill.students.batch import Budget, ListBatch

BLOCK = 4096
"""Vectors that are quantised at once outside of training."""


class QuantizerOptions(Card):
    """Who reads queries and documents, and how documents are kept."""

    init: str
    """The bi-encoder that reads queries: Hugging Face id, folder or ``package:NAME/PATH``."""
    revision: str | None = None
    docs: str = ""
    """The model that reads documents; empty: ``init``."""
    similarity: Literal["cosine", "dot"] = "cosine"
    query_tokens: int = 64
    doc_tokens: int = 256
    query_prefix: str | None = None
    m: int = Field(default=0, ge=0)
    """Parts a vector is cut into: with 8 bits so many bytes a document. 0: one for every eight dimensions."""
    bits: int = Field(default=0, ge=0, le=12)
    """2^bits codewords a part. 0: 8, or fewer for a small collection."""
    nlist: int = Field(default=0, ge=-1)
    """Lists of the inverted file. 0: no lists, every document is scored. -1: as many as suit the collection."""
    nprobe: int = Field(default=0, ge=0)
    """Lists that a search opens; 0: an eighth of them, eight at least."""
    opq: bool = False
    """Turn the space first, by faiss's training; the turn is not learnt further."""
    train_size: int = Field(default=0, ge=0)
    """Documents that faiss trains the first codebooks on; 0: 256 for each codeword and list."""
    book_seed: int = 1
    """Of that training."""
    learn_queries: bool = False
    """The query encoder learns too; it then no longer fits the documents' other indexes."""
    codeword_rate: float = Field(default=1.0, gt=0)
    """Learning rate of the codewords, over the stage's. The paper's is ten times the query encoder's."""
    centroid_rate: float = Field(default=0.1, gt=0)
    """Learning rate of the centroids, over the stage's. The paper's is ten times the codewords', over very many steps;
    centroids decide which lists are opened, and a few hundred steps as fast as that do them harm."""
    centroid_weight: float = Field(default=0.0, ge=0)
    """Weight of the centroids' loss. 0: set once, by the first batch, so that it is as large as the codes'."""
    temperature: float = Field(default=0.1, gt=0)
    """Of the choice of a codeword, in the gradient; see :mod:`rerankdistill.students.codes`."""

    @model_validator(mode="after")
    def _lists(self) -> QuantizerOptions:
        if self.nprobe and not self.nlist:
            raise ValueError("nprobe: there are no lists to open; set nlist")
        return self

    def towers(self) -> query_tower.QueryTowerOptions:
        """The same for the two encoders."""
        names = ("init", "revision", "docs", "similarity", "query_tokens", "doc_tokens", "query_prefix")
        return query_tower.QueryTowerOptions(**{name: getattr(self, name) for name in names})


class Kind:
    """Codebooks in training, behind two encoders. :meth:`start` gives them their documents."""

    Options = QuantizerOptions
    layout: Literal["batch", "lists"] = "batch"

    def __init__(self, towers: query_tower.Kind, options: QuantizerOptions, books: Codebooks | None = None) -> None:
        import torch

        self.towers, self.options, self.device = towers, options, towers.device
        towers.network.requires_grad_(options.learn_queries)
        self.network = torch.nn.Module()
        self.network.queries = towers.network
        self.network.register_buffer("centroid_weight", torch.tensor(options.centroid_weight, device=self.device.name))
        self.training_tokens = 0
        """Documents are encoded whole, whatever this says: the index holds them so."""
        if books:
            self._take(books)

    @classmethod
    def create(cls, options: QuantizerOptions, device: str = "auto") -> Kind:
        """A new student; it has no codebooks before :meth:`start`."""
        return cls(query_tower.Kind.create(options.towers(), device), options)

    @classmethod
    def open(cls, folder: Path, options: QuantizerOptions, device: str = "auto") -> Kind:
        """A student that :meth:`save` wrote."""
        return cls(query_tower.Kind.open(folder, options.towers(), device), options, codebooks.read(folder))

    @staticmethod
    def source_fingerprint(options: QuantizerOptions) -> str:
        return query_tower.Kind.source_fingerprint(options.towers())

    @staticmethod
    def docs_reference(options: QuantizerOptions) -> tuple[str, str | None]:
        """The documents' model and its revision."""
        return query_tower.Kind.docs_reference(options.towers())

    @staticmethod
    def index_card(options: QuantizerOptions) -> dict[str, Any]:
        """The kind of index that its documents go into, and its options but for the codebooks."""
        return {"kind": "ivfpq", "options": {"nprobe": options.nprobe}} if options.nlist else {"kind": "pq"}

    def start(self, vectors: Any) -> None:
        """Begin with what faiss trains on the documents' vectors ``[n, d]``; one that has codebooks keeps them."""
        if hasattr(self.network, "quantiser"):
            return
        asked = self.options
        nlist = codebooks.lists_for(len(vectors)) if asked.nlist < 0 else asked.nlist
        layout = Layout(asked.m, asked.bits, nlist, asked.opq)
        self._take(codebooks.train(vectors, layout, asked.book_seed, asked.train_size))

    def _take(self, books: Codebooks) -> None:
        from rerankdistill.students.codes import Quantiser

        asked = self.options
        made = Quantiser(books, asked.codeword_rate, asked.centroid_rate, asked.temperature)
        self.network.quantiser = made.to(self.device.name)

    @property
    def documents(self) -> Callable[[Sequence[str]], FloatArray] | None:
        """Vectors of documents by id; without it they are encoded as they come."""
        return self.towers.documents

    @documents.setter
    def documents(self, known: Callable[[Sequence[str]], FloatArray] | None) -> None:
        self.towers.documents = known

    @property
    def quantiser(self) -> Any:
        """The learning codebooks. Raises DataError before :meth:`start`."""
        if not hasattr(self.network, "quantiser"):
            fix = "train it in a pipeline, which shows it the documents first"
            raise DataError("a quantizer has no codebooks before it has seen documents", fix=fix)
        return self.network.quantiser

    def ready(self, training: bool) -> None:
        """Switch between training and inference; the weights stay."""
        self.towers.ready(training and self.options.learn_queries)
        self.network.train(training)

    def save(self, folder: Path) -> None:
        books = self.quantiser.books()
        self.towers.save(folder)
        codebooks.write(books, folder, self.options.nprobe)

    def read(self, batch: ListBatch, budget: Budget, needs: frozenset[str]) -> list[Reading]:  # noqa: ARG002
        """``[b, m]`` twice: by the codes, and by the lists' centroids where there are lists."""
        import torch

        if self.options.learn_queries:
            queries = self.towers.embed(batch.queries, "query", budget)
        else:
            queries = torch.tensor(self.towers.encoder().encode(batch.queries, "query"), device=self.device.name)
        known = self.documents
        vectors = known(batch.doc_ids) if known else self.towers.encoder().encode(batch.docs, "doc")
        docs = torch.tensor(vectors, dtype=queries.dtype, device=queries.device)
        whole, coarse = self.quantiser(docs)
        readings = [Reading(queries @ whole.T)]
        return readings if coarse is None else [*readings, Reading(queries @ coarse.T)]

    def weigh(self, losses: Sequence[Tensor]) -> list[Tensor]:
        """The weights of the readings' losses: the centroids' is set by the first batch and stays."""
        if len(losses) == 1:
            return [losses[0].new_ones(())]
        weight: Tensor = self.network.get_buffer("centroid_weight")
        if not float(weight):
            weight.copy_((losses[0] / losses[1].clamp_min(1e-12)).detach().clamp(1e-3, 1e3))
        return [losses[0].new_ones(()), weight.to(losses[0])]

    def remembered(self, vectors: FloatArray) -> FloatArray:
        """``[n, d]`` what an index keeps of documents' vectors."""
        import torch

        parts = []
        with torch.no_grad():
            for start in range(0, len(vectors), BLOCK):
                block = torch.tensor(np.asarray(vectors[start : start + BLOCK], np.float32), device=self.device.name)
                parts.append(self.quantiser(block)[0].cpu().numpy())
        return np.concatenate(parts) if parts else np.empty((0, self.towers.encoder().dimension), np.float32)

    def encoder(self) -> Any:
        """Both towers for inference; a document's vector is the whole one, of which :meth:`remembered` is kept."""
        return self.towers.encoder()
