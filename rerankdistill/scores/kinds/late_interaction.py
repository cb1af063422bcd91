"""Late interaction as a teacher: each word of a query finds its best match in the document, and the matches are summed.

MaxSim (Khattab, Zaharia 2020, ColBERT, arXiv:2004.12832): s(q, d) = sum over query tokens i of max over document tokens
j of E_q[i] · E_d[j]. Which tokens take part (query expansion, the skip-list of punctuation, prefixes, lengths, pooling)
is the model's own configuration, applied by sentence-transformers' ``MultiVectorEncoder``, which also reads ColBERT's
and PyLate's checkpoints. A model that says ``meanmaxsim`` divides by the number of query tokens.

Every distinct text of a call is encoded once. Documents are scored against all of their queries as soon as they are
encoded and then let go, so that a call holds the vectors of its queries and of one batch of documents. A teacher that
scores whole batches while a student is trained on them (Lin, Yang, Lin 2020, TCT-ColBERT, arXiv:2010.11386) meets the
same texts again and again: :meth:`Kind.matrix` remembers those that it met last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from pydantic import Field

from rerankdistill.cards import Card
from rerankdistill.errors import CardError, DataError
from rerankdistill.scores.card import Context, ScorerCard
from rerankdistill.scores.kinds._model import ModelKind
from rerankdistill.types import FloatArray, Group, Query, Scale

if TYPE_CHECKING:
    from torch import Tensor

    from rerankdistill.contracts import Role


class LateInteractionOptions(Card):
    """``token_budget``: padded tokens a batch. ``remembered``: vectors of tokens that are held in memory between the
    batches of a training (half a million of 128 numbers are 256 MB). What decides a score is in the model's own
    configuration."""

    token_budget: int = Field(default=16384, gt=0)
    remembered: int = Field(default=500_000, ge=0)


class Kind(ModelKind[LateInteractionOptions]):
    """MaxSim of a multi-vector encoder by Hugging Face id, folder, or ``package:NAME/PATH``, loaded when first asked.

    ``lengths.query`` and ``lengths.doc`` replace the model's own limits; a query that the model expands to a fixed
    number of tokens keeps that.
    """

    Options = LateInteractionOptions
    kind = "late_interaction"
    scale = Scale.SIMILARITY
    memory = frozenset({"token_budget", "remembered"})

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.read_docs: Callable[[Sequence[str]], Sequence[str]] | None = None
        self._remembered: dict[tuple[Role, str], Tensor] = {}
        self._size = 0

    @classmethod
    def open(cls, card: ScorerCard, context: Context) -> Self:
        """The teacher of a card. Raises CardError: mistakes in its options, another scale, or ``lengths.total``."""
        found = super().open(card, context)
        found.read_docs = context.texts
        if card.lengths.total:
            fix = "write lengths.query and lengths.doc, or neither"
            raise CardError("query and document are read apart: lengths.total says nothing", where=card.name, fix=fix)
        return found

    @cached_property
    def model(self) -> Any:
        """The ``MultiVectorEncoder``, in float32 (products in :attr:`device`'s dtype).

        Raises:
            DataError: not a model, or one without a trained projection, whose scores would be random.
            CardError: ``lengths.query`` below the length that the model expands queries to.
        """
        from sentence_transformers import MultiVectorEncoder

        from rerankdistill.encoding import load, makes_token_vectors

        if not makes_token_vectors(self.name, self.revision):
            what = "this is no late-interaction model: a projection would be made up, and its scores would be random"
            raise DataError(what, where=self.name, fix="name a ColBERT-like model, or use kind = 'bi_encoder'")
        loaded = load(lambda path: MultiVectorEncoder(path, revision=self.revision, device="cpu"), self.name)
        body, cuts = loaded[0], self.lengths
        expansion = getattr(body, "query_expansion", None)
        if expansion and cuts.query and cuts.query < expansion["length"]:
            what = f"lengths.query = {cuts.query}, but this model expands queries to {expansion['length']} tokens"
            raise CardError(what, where=self.name, fix="leave lengths.query out of the teacher's card")
        body.query_length = cuts.query or getattr(body, "query_length", None)
        body.document_length = cuts.doc or getattr(body, "document_length", None)
        return loaded.float().to(self.device.name).eval()

    def judge(self, groups: Sequence[Group]) -> list[FloatArray]:
        """Similarities, summed in float32."""
        queries = dict(self._stream(_distinct([group.query.text for group in groups if group.texts]), "query"))
        asked: dict[str, list[tuple[int, int]]] = {}
        for at, group in enumerate(groups):
            for column, text in enumerate(group.texts):
                asked.setdefault(text, []).append((at, column))
        found = [np.zeros(len(group.texts), np.float32) for group in groups]
        for text, vectors in self._stream(list(asked), "doc"):
            places = asked[text]
            values = self._maxsim([queries[groups[at].query.text] for at, _ in places], vectors)
            for (at, column), value in zip(places, values, strict=True):
                found[at][column] = value
        return found

    def matrix(self, queries: Sequence[Query], doc_ids: Sequence[str]) -> FloatArray:
        """``[len(queries), len(doc_ids)]`` similarities, those of :meth:`judge`.

        Raises:
            DataError: nobody gave it the documents' texts.
        """
        if self.read_docs is None:
            raise DataError("no texts of documents", where=self.name, fix="open it with a context that reads them")
        asked = self._met([query.text for query in queries], "query")
        docs = self._met(self.read_docs(doc_ids), "doc")
        return np.stack([self._maxsim(asked, document) for document in docs], 1)

    def _met(self, texts: Sequence[str], role: Role) -> list[Tensor]:
        """The vectors of each text; those met before are remembered, and the ones that were not met for longest are
        forgotten when they are too many."""
        found = {
            text: self._remembered.pop((role, text)) for text in _distinct(texts) if (role, text) in self._remembered
        }
        fresh = dict(self._stream([text for text in _distinct(texts) if text not in found], role))
        self._size += sum(map(len, fresh.values()))
        found |= fresh
        self._remembered |= {(role, text): vectors for text, vectors in found.items()}
        while self._remembered and self._size > self.options.remembered:
            self._size -= len(self._remembered.pop(next(iter(self._remembered))))
        return [found[text] for text in texts]

    def _stream(self, texts: Sequence[str], role: Role) -> Iterator[tuple[str, Tensor]]:
        """Texts, longest first, each with its vectors ``[tokens, dimension]`` float32: no padding, and no token that
        takes no part."""
        import torch

        from rerankdistill.encoding import plan_batches, tokenise

        if not texts:
            return
        model = self.model
        encode: Callable[..., list[Tensor]] = model.encode_query if role == "query" else model.encode_document
        limit = int(model.max_seq_length or 512)
        own = model[0].query_length if role == "query" else model[0].document_length
        lengths = tokenise(model.tokenizer, texts, min(own or limit, limit)).lengths
        for rows in plan_batches(lengths, self.options.token_budget):
            with torch.inference_mode(), self.device.autocast():
                batch = [texts[row] for row in rows]
                vectors = encode(batch, batch_size=len(batch), show_progress_bar=False)
            for text, each in zip(batch, vectors, strict=True):
                yield text, each.float()

    def _maxsim(self, queries: Sequence[Tensor], document: Tensor) -> FloatArray:
        """``[len(queries)]`` sums over each query's tokens of its best match; a document of which no token takes part
        matches as badly as unit vectors can."""
        import torch

        sizes = [len(query) for query in queries]
        with torch.inference_mode():
            if len(document) and sum(sizes):
                best = (torch.cat(list(queries)) @ document.T).max(1).values.cpu().numpy()
            else:
                best = np.full(sum(sizes), -1.0, np.float32)
        sums = [best[start:end].sum(dtype=np.float32) for start, end in pairwise(np.cumsum([0, *sizes]).tolist())]
        if self.model.similarity_fn_name == "meanmaxsim":
            sums = [value / max(size, 1) for value, size in zip(sums, sizes, strict=True)]
        return np.array(sums, np.float32)


def _distinct(texts: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(texts))
