"""What students share that answer a question about query and document with a word: its logit is the score."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from pydantic import Field, field_validator, model_validator

from rerankdistill import devices
from rerankdistill.artifacts import fingerprint
from rerankdistill.cards import Card
from rerankdistill.contracts import Reading
from rerankdistill.encoding import Tokens, map_batches
from rerankdistill.errors import CardError
from rerankdistill.prompting import tokenise_prompts, whole
from rerankdistill.students.kinds._network import fit_attention, run_chunks
from rerankdistill.students.lora import LoraOptions, adapt, is_adapted, merged_weights
from rerankdistill.types import FloatArray

if TYPE_CHECKING:
    from torch import Tensor

    from rerankdistill.students.batch import Budget, ListBatch

Output = Literal["margin", "logprob", "logit"]
SAVED = "rerankdistill"
"""Under this name a saved model's configuration says how it is asked and read."""


class WordOptions(Card):
    """What such a student is made from; what is None is what a student's folder says of itself, or else the kind's."""

    init: str
    revision: str | None = None
    max_tokens: int | None = Field(default=None, gt=0)
    """Of the whole prompt; the document is cut, never the query. None: 256, where the folder does not say."""
    template: str | None = None
    """What the model reads; ``{query}`` and ``{document}`` stand for theirs."""
    tokens: tuple[str, ...] | None = Field(default=None, min_length=1, max_length=2)
    """The word for relevant and, where there are two, the one for not; the first token of each is read."""
    output: Output | Literal["likelihood"] | None = None
    """Of two words the ``margin`` of their logits, or ``logprob``, log-softmax of the first over both; of one its
    ``logit``. None: ``margin`` of two, ``logit`` of one."""
    dropout: float | None = 0.0
    lora: LoraOptions | None = None
    """Train adapters alone; they are added into the weights when the student is saved."""

    @field_validator("template")
    @classmethod
    def _whole(cls, template: str | None) -> str | None:
        return None if template is None else whole(template)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.output in (None, "likelihood") or not self.tokens:
            return self
        if (self.output == "logit") != (len(self.tokens) == 1):
            raise ValueError(f"output = {self.output!r} of {len(self.tokens)} token(s)")
        return self


class Question(Card):
    """How a model is asked and read, decided; saved with it."""

    template: str
    tokens: tuple[str, ...]
    token_ids: tuple[int, ...]
    output: Output | Literal["likelihood"]
    special_tokens: bool = True
    """Whether the tokenizer adds its own, as it does by default."""
    max_tokens: int


class WordReader:
    """The base of the kinds: they say how a model is opened, and :meth:`_logits`."""

    layout: Literal["batch", "lists"] = "lists"
    gives: frozenset[str] = frozenset({"logits"})
    """What its readings hold beside scores; see :class:`rerankdistill.contracts.Reading`."""
    name: str
    """The kind's, for the fingerprint."""

    def __init__(
        self, network: Any, tokenizer: Any, options: WordOptions, asks: Question, device: devices.Device, mark: str
    ) -> None:
        self.network, self.tokenizer = network.to(device.name), tokenizer
        self.options, self.question, self.device = options, asks, device
        self.training_tokens = 0
        """Cut prompts to so many tokens in training; 0: as in use."""
        setattr(network.config, SAVED, asks.model_dump(mode="json"))
        self.fingerprint = fingerprint(self.name, mark, asks.model_dump(mode="json"), device.dtype)

    def ready(self, training: bool) -> None:
        """Switch between training and inference; the weights stay."""
        if training and self.options.lora:
            adapt(self.network, self.options.lora)
        self.network.train(training)
        fit_attention(self.network, self.device, training)

    def save(self, folder: Path) -> None:
        """A plain transformers folder; adapters are added into its weights."""
        weights = merged_weights(self.network) if is_adapted(self.network) else None
        self.network.save_pretrained(str(folder), state_dict=weights)
        self.tokenizer.save_pretrained(str(folder))

    def read(self, batch: ListBatch, budget: Budget, needs: frozenset[str]) -> list[Reading]:
        """``[b, m]``: every query against its own list; with its two logits where the loss ``needs`` them."""
        import torch

        if "logits" in needs and len(self.question.tokens) < 2:
            fix = "give two tokens, that for relevant first"
            raise CardError("the loss reads two logits, and the student does not answer with two tokens", fix=fix)
        rows, columns = torch.nonzero(batch.valid, as_tuple=True)
        documents = batch.columns[rows, columns].tolist()
        pairs = [(batch.queries[row], batch.docs[at]) for row, at in zip(rows.tolist(), documents, strict=True)]
        tokens = self._tokens(pairs, self.training_tokens)
        found = run_chunks(self._forward, tokens, budget, self.network, self.device)
        place = found.device
        cells = (rows.to(place), columns.to(place))
        scores = self._scores(found)
        reading = Reading(torch.zeros(batch.valid.shape, device=place, dtype=scores.dtype).index_put(cells, scores))
        if "logits" in needs:
            both = torch.zeros((*batch.valid.shape, 2), device=place, dtype=found.dtype)
            reading.logits = both.index_put(cells, found.flip(1))  # (no, yes)
        return [reading]

    def score(self, pairs: Sequence[tuple[str, str]]) -> FloatArray:
        """``[len(pairs)]`` scores."""
        import torch

        if not pairs:
            return np.empty(0, np.float32)
        self.network.eval()
        logits = np.stack(map_batches(self._tokens(pairs), self._forward, self.device, 16384))
        return np.asarray(self._scores(torch.from_numpy(logits)), np.float32)

    def _tokens(self, pairs: Sequence[tuple[str, str]], most: int = 0) -> Tokens:
        limit = min(most or self.question.max_tokens, self.question.max_tokens)
        asks, mark = self.question, self.question.output == "likelihood"
        return tokenise_prompts(
            self.tokenizer, asks.template, pairs, limit, special=asks.special_tokens, mark_query=mark
        )

    def _scores(self, logits: Tensor) -> Tensor:
        """``[n]`` of ``[n, tokens]``."""
        import torch

        if logits.shape[1] == 1:
            return logits[:, 0]
        margin = logits[:, 0] - logits[:, 1]
        return torch.nn.functional.logsigmoid(margin) if self.question.output == "logprob" else margin

    def _forward(self, features: dict[str, Tensor]) -> Tensor:
        """``[n, tokens]`` logits of tokenised prompts; of a likelihood, which asks for no token, ``[n, 1]``."""
        raise NotImplementedError


def decide(options: WordOptions, saved: dict[str, Any] | None, template: str, tokens: tuple[str, ...]) -> Question:
    """How a model is asked: as the options say, as its folder does, or else as given. ``token_ids`` come later."""
    known = saved or {}
    words = options.tokens or tuple(known.get("tokens", tokens))
    one = len(words) == 1
    output: Output | Literal["likelihood"] = options.output or known.get("output") or ("logit" if one else "margin")
    if (output == "logit") != one:
        output = "logit" if one else "margin"
    asked = options.template or known.get("template", template)
    special = bool(known.get("special_tokens", True)) if options.template is None else True
    most = options.max_tokens or int(known.get("max_tokens", 256))
    return Question(template=asked, tokens=words, token_ids=(), output=output, special_tokens=special, max_tokens=most)


def few_rows(output: Any, ids: Sequence[int] | None, hidden: Tensor) -> Tensor:
    """``[…, len(ids)]`` what an output layer says of a few tokens (None: of all), in float32 at least: bfloat16 would
    tie scores in its own coarse steps."""
    import torch

    rows = slice(None) if ids is None else list(ids)
    with torch.autocast(hidden.device.type, enabled=False):
        dtype = torch.promote_types(hidden.dtype, torch.float32)
        bias = None if output.bias is None else output.bias[rows].to(dtype)
        return torch.nn.functional.linear(hidden.to(dtype), output.weight[rows].to(dtype), bias)
