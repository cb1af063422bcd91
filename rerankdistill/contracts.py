"""What the rooms promise each other: protocols, and the one record that losses read.

Rooms never import each other; ``pipeline`` hands them objects that keep these promises.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from rerankdistill.types import Answer, Doc, FloatArray, Group, Judgement, Query, Run, Scale, View

if TYPE_CHECKING:
    from torch import Tensor

Role = Literal["query", "doc"]
Accepts = Literal["texts", "vectors", "sparse", "tokens"]
"""What an index is filled with: texts, ``[n, d]`` vectors, a ``csr_array``, or
:class:`rerankdistill.representations.TokenVectors`."""


@runtime_checkable
class Source(Protocol):
    """A collection: documents, queries and judgements that are read where they lie."""

    name: str

    @property
    def fingerprint(self) -> str:
        """Changes when a document, query or judgement changes, and not when the folder is moved."""

    def docs_fingerprint(self) -> str:
        """Of the documents alone, so that a step depends on no more than it reads."""

    def queries_fingerprint(self, split: str) -> str:
        """Of the queries of a split alone."""

    def judgements_fingerprint(self, split: str) -> str:
        """Of the judgements of a split alone."""

    def docs(self) -> Iterator[Doc]:
        """Every document, streamed, in a fixed order."""

    def doc_ids(self) -> Sequence[str]:
        """Every ``doc_id`` in the order of :meth:`docs`."""

    def texts(self, doc_ids: Sequence[str], view: View) -> list[str]:
        """What a model reads of these documents. Raises DataError for an unknown id."""

    def splits(self) -> tuple[str, ...]:
        """The splits that have judgements, of ``train``, ``dev``, ``test``."""

    def queries(self, split: str) -> list[Query]:
        """The queries that have judgements in a split (all of the collection's own where it has no judgements)."""

    def all_queries(self) -> Iterator[Query]:
        """Every query that comes with the collection, of whatever split, without opening any judgements."""

    def judgements(self, split: str) -> Iterator[Judgement]:
        """The judgements of a split, streamed."""

    def runs(self, split: str) -> Mapping[str, Run]:
        """Candidate lists that come with the collection, by name; mostly empty."""


class Encoder(Protocol):
    """Texts to dense vectors. A bi-encoder student, or a bi-encoder used as a teacher or to build an index."""

    dimension: int
    fingerprint: str

    def encode(self, texts: Sequence[str], role: Role) -> FloatArray:
        """``[len(texts), dimension]`` float32 whose dot product is the model's similarity."""


class PairScorer(Protocol):
    """A cross-encoder: reads query and document together."""

    fingerprint: str

    def score(self, pairs: Sequence[tuple[str, str]]) -> FloatArray:
        """``[len(pairs)]`` scores; higher is more relevant."""


class Index(Protocol):
    """A searchable copy of a collection in one folder.

    ``accepts`` says what it is filled and searched with. Results are ordered by (-score, doc_id).

    An index may also have

    - ``update(folder, source, gone, doc_ids, content, device)``, a class method that writes into an empty folder what
      ``source`` holds without the documents ``gone`` and with these (see ``index/update.py``);
    - ``mapped`` and ``living``: beginnings of the names of files that are mapped into memory instead of read, and of
      files that their library changes when it opens them (see ``index/seal.py``).
    """

    accepts: Accepts

    @classmethod
    def build(cls, folder: Path, doc_ids: Sequence[str], content: Any, options: Any, device: str = "auto") -> None:
        """Write the index into an empty folder. ``content``: what it accepts, one for each document."""

    @classmethod
    def open(cls, folder: Path, device: str = "auto") -> Index:
        """Open what :meth:`build` wrote; the folder alone is enough."""

    def search(self, queries: Any, depth: int) -> list[list[tuple[str, float]]]:
        """For each query (text, row of a matrix, or text of token vectors) at most ``depth`` (doc_id, score)."""


class Teacher(Protocol):
    """Scores documents for a query. The teacher owns the batching inside ``judge``; the store owns the resume.

    A teacher may also have

    - ``unit``: ``"pair"`` (what is said of a document depends on it and the query alone; the default) or ``"list"`` (it
      depends on the whole list and its order: such a list is never cut, and stored under its own key);
    - ``keeps``: which of ``details`` and ``traces`` its answers carry; each ``judge`` then gives :class:`Answer`;
    - ``details_are``: what the details of a document say, where students can learn from it: ``"preferences"``, P(it is
      better than document j) for every j of the list, or ``"logits"``, those of yes and of no, in this order;
    - ``usage``: a mapping of counters that grow (tokens, requests, malformed answers, money), added up in the store;
    - ``spent(usage)``: is told once what the store has on record, so that a budget holds over several runs;
    - ``batch_pairs``: how many pairs to begin with, for one that is slow; ``partial``: whether it may have no answer.
    """

    scale: Scale
    view: View
    needs_texts: bool
    """False for a teacher that knows documents by id (lexical, recorded): it is then handed empty texts."""

    @property
    def fingerprint(self) -> str:
        """Model, revision, lengths, dtype, prompt, view; for a lexical teacher its index's fingerprint."""

    def judge(self, groups: Sequence[Group]) -> Sequence[FloatArray | Answer]:
        """For each group ``[len(group.doc_ids)]`` raw scores; NaN where the teacher has no answer."""


@runtime_checkable
class MatrixTeacher(Protocol):
    """A teacher cheap enough to score every query of a batch against every document of it."""

    def matrix(self, queries: Sequence[Query], doc_ids: Sequence[str]) -> FloatArray:
        """``[len(queries), len(doc_ids)]`` raw scores, equal to what ``judge`` gives for the same pairs."""


@dataclass(slots=True)
class Vectors:
    """Representations of the same ``t`` texts: ``student [t, d]``, ``teacher [t, d']``; ``queue [k, d']``, where there
    is one, the teacher's of other texts."""

    student: Tensor
    teacher: Tensor
    queue: Tensor | None = None


@dataclass(slots=True)
class Preferences:
    """``p`` comparisons that a teacher made: in row ``row`` it prefers column ``first`` to column ``second`` with
    ``probability`` (0 to 1); ties are 1/2. All are ``[p]``; the columns are the batch's."""

    row: Tensor
    first: Tensor
    second: Tensor
    probability: Tensor


@dataclass(slots=True)
class Layers:
    """Scores read from inside of both models, ``l`` pairs of layers that belong together, lowest first: ``student
    [l, b, m]`` with gradient, ``teacher [l, b, m]``."""

    student: Tensor
    teacher: Tensor


@dataclass(slots=True)
class Logits:
    """Both answers to a yes/no question, ``[b, m, 2]`` as (no, yes): ``student`` with gradient, ``teacher``."""

    student: Tensor
    teacher: Tensor


@dataclass(slots=True)
class Reading:
    """What a student makes of a batch of lists, in one of the ways it can be read.

    A student that is to work in several ways (prefixes of its vectors, early exits, quantised) gives one reading for
    each, and the step's loss is their sum by ``weight``.

    Attributes:
        scores: ``[b, m]`` with gradient.
        docs: ``[m, m]`` similarities among the documents of the columns, with gradient.
        layers: ``[l, b, m]`` scores by layer, lowest first, with gradient.
        logits: ``[b, m, 2]`` answers to a yes/no question as (no, yes), with gradient.
        cost: a scalar that is added to the loss as it is: what a sparse student pays for its entries, say.
    """

    scores: Tensor
    weight: float = 1.0
    docs: Tensor | None = None
    layers: Tensor | None = None
    logits: Tensor | None = None
    cost: Tensor | None = None


@dataclass(slots=True)
class Scores:
    """All that a loss sees of one batch: ``b`` queries, ``m`` columns (every distinct document of the batch).

    Attributes:
        student: ``[b, m]`` scores with gradient.
        teacher: ``[b, m]`` scores, never with gradient; anything at all where ``scored`` is false.
        valid: ``[b, m]`` bool. False: padding. Such a cell takes part in nothing and gets exactly zero gradient,
            whatever it holds.
        scored: ``[b, m]`` bool, true where the teacher gave a finite score. Always within ``valid``.
        own: ``[b, m]`` bool, true where the document is of the query's own list. The other columns are in-batch.
        label: ``[b, m]`` grades >= 0.
        positive: ``[b]`` column of the given positive, -1 where a query has none.
        masked: ``[b, m]`` bool, true where a document is probably relevant though nobody said so. Contrastive losses
            leave such a cell out of their denominators; listwise ones do not care.
        vectors: for losses on representations.
        preferences: for losses on a teacher's comparisons of two documents.
        layers: for losses on what both models think half-way.
        logits: for losses on both answers to a yes/no question.
        docs: ``[m, m]`` the student's similarities among the documents of the columns, with gradient.
    """

    student: Tensor
    teacher: Tensor | None = None
    valid: Tensor | None = None
    scored: Tensor | None = None
    own: Tensor | None = None
    label: Tensor | None = None
    positive: Tensor | None = None
    masked: Tensor | None = None
    vectors: Vectors | None = None
    preferences: Preferences | None = None
    layers: Layers | None = None
    logits: Logits | None = None
    docs: Tensor | None = None


class Loss(Protocol):
    """A pure function of :class:`Scores`, configured by keyword arguments of its constructor.

    ``needs`` names the fields of :class:`Scores` it cannot do without; ``eats`` the teacher scales it can digest
    (empty: it reads no teacher). It returns ``(sum, weight)``: the loss of the batch is ``sum / weight``, and sums and
    weights of micro-batches add up, so that chunking cannot bias a mean. Computed in float32 at least (float64 stays
    float64). One with ``same_dimension = True`` compares vectors of one dimension alone.
    """

    needs: frozenset[str]
    eats: frozenset[Scale]

    def __call__(self, scores: Scores) -> tuple[Tensor, Tensor]: ...


@runtime_checkable
class Scheduled(Protocol):
    """A loss that changes in the course of a training."""

    def at(self, share_done: float) -> Loss:
        """The loss when so much of the training is done, 0 at its start and 1 at its end."""


class DevEvaluation(Protocol):
    """Measures a student during training; the students' room does not know how."""

    @property
    def measure(self) -> str: ...

    def __call__(self, student: Any) -> float: ...
