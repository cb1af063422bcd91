"""A T5-like encoder-decoder as a teacher, read at the first position it would write.

monoT5 (Nogueira, Jiang, Pradeep, Lin 2020, arXiv:2003.06713) reads ``Query: … Document: … Relevant:`` and says *true*
or *false*: both logits are kept, and the score is log P(true) between the two, or their margin. RankT5 (Zhuang et al.
2022, arXiv:2210.10634) reads the pair and is scored by the raw logit of one token that text never uses.

The decoder runs over one position, and the output layer holds the rows of the named tokens alone, so that a vocabulary
of 32 000 (mT5: 250 000) costs nothing. Everything before that layer, T5's scaling by d_model**-0.5 included, is the
model's own forward. Of a pair that is too long the document is cut; the template's end always arrives.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from pydantic import Field, field_validator, model_validator

from rerankdistill.cards import Card
from rerankdistill.errors import CardError, DataError
from rerankdistill.scores.kinds._model import ModelKind
from rerankdistill.types import Answer, FloatArray, Group, Scale

if TYPE_CHECKING:
    from torch import Tensor

    from rerankdistill.encoding import Tokens

DEFAULT_TOTAL = 512
MONOT5 = "Query: {query} Document: {document} Relevant:"
SCALES = {"logprob": Scale.LOGPROB, "margin": Scale.LOGIT, "logit": Scale.LOGIT}


class Seq2SeqOptions(Card):
    """What the model is shown and which of its logits are the score.

    Attributes:
        template: the text that the encoder reads; ``{query}`` and ``{document}`` stand for theirs.
        tokens: the token that means relevant and, for a yes/no model, the one that means not. As they begin a word
            where the vocabulary knows them so.
        output: of two tokens ``logprob``, log-softmax of the first over both, or ``margin``, their difference (the
            log-odds); of one its ``logit``. ``auto``: ``logprob`` of two, ``logit`` of one.
        token_budget: padded tokens a batch.
    """

    template: str = MONOT5
    tokens: tuple[str, ...] = Field(default=("true", "false"), min_length=1, max_length=2)
    output: Literal["auto", "logprob", "margin", "logit"] = "auto"
    token_budget: int = Field(default=16384, gt=0)

    @field_validator("template")
    @classmethod
    def _whole(cls, template: str) -> str:
        if any(template.count(part) != 1 for part in ("{query}", "{document}")):
            raise ValueError("a template needs {query} once and {document} once")
        return template

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.output != "auto" and (self.output == "logit") != (len(self.tokens) == 1):
            raise ValueError(f"output = {self.output!r} of {len(self.tokens)} token(s)")
        return self

    @property
    def reading(self) -> Literal["logprob", "margin", "logit"]:
        """``output``, decided."""
        if self.output == "auto":
            return "logprob" if len(self.tokens) == 2 else "logit"
        return self.output


class Kind(ModelKind[Seq2SeqOptions]):
    """A sequence-to-sequence re-ranker by Hugging Face id, folder, or ``package:NAME/PATH``, loaded when first asked.

    ``lengths.total`` (512 tokens where it is not given) bounds the whole prompt; ``lengths.doc`` bounds the document
    and ``lengths.query`` the query (half of the total where it is not given).
    """

    Options = Seq2SeqOptions
    kind = "seq2seq"
    details_are = "logits"

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.scale = SCALES[self.options.reading]
        two = len(self.options.tokens) == 2
        self.keeps: tuple[str, ...] = ("details",) if two else ()
        self.details_are = "logits" if two else ""

    @cached_property
    def tokenizer(self) -> Any:
        from transformers import AutoTokenizer

        from rerankdistill.encoding import load

        return load(lambda path: AutoTokenizer.from_pretrained(path, revision=self.revision), self.name)

    @cached_property
    def model(self) -> Any:
        """The model in float32 (products in :attr:`device`'s dtype), its output layer cut to the named tokens.

        Raises:
            DataError: not a whole encoder-decoder, or one of the tokens is none of its vocabulary.
        """
        import torch
        from transformers import AutoModelForSeq2SeqLM

        from rerankdistill.encoding import load

        def build(path: str) -> Any:
            options = {"revision": self.revision, "dtype": torch.float32, "output_loading_info": True}
            return AutoModelForSeq2SeqLM.from_pretrained(path, **options)

        loaded, info = load(build, self.name)
        if info["missing_keys"]:
            what = f"the checkpoint lacks {len(info['missing_keys'])} of the model's weights; its scores are random"
            raise DataError(what, where=self.name, fix="name a whole encoder-decoder, or use another kind")
        head = loaded.get_output_embeddings()
        if not isinstance(head, torch.nn.Linear) or hasattr(loaded, "final_logits_bias"):
            raise DataError("no T5-like model: its output layer is not one matrix", where=self.name)
        loaded.set_output_embeddings(_rows(head, self.token_ids))
        return loaded.to(self.device.name).eval()

    @cached_property
    def token_ids(self) -> list[int]:
        """The ids of ``options.tokens``. Raises DataError for a token that the vocabulary lacks."""
        known: Mapping[str, int] = self.tokenizer.get_vocab()
        found = []
        for token in self.options.tokens:
            spellings = [name for name in (f"\N{LOWER ONE EIGHTH BLOCK}{token}", token) if name in known]
            if not spellings:
                fix = "set options.tokens in the teacher's card to tokens that it was trained to answer with"
                raise DataError(f"{token!r} is not one token of this vocabulary", where=self.name, fix=fix)
            found.append(known[spellings[0]])
        return found

    @property
    def total(self) -> int:
        """The most tokens of a prompt, the end-of-sequence token included."""
        return self.lengths.total or DEFAULT_TOTAL

    def judge(self, groups: Sequence[Group]) -> list[FloatArray | Answer]:
        """Scores; of a yes/no model with both logits ``[2]`` (relevant, not) of every document as its details."""
        pairs = [(group.query.text, text) for group in groups for text in group.texts]
        logits = self.logits(pairs)
        scores = self._read(logits)
        found: list[FloatArray | Answer] = []
        for rows in _slices([len(group.texts) for group in groups]):
            plain = scores[rows]
            found.append(Answer(plain, tuple(logits[rows])) if self.keeps else plain)
        return found

    def logits(self, pairs: Sequence[tuple[str, str]]) -> FloatArray:
        """``[len(pairs), len(options.tokens)]`` raw logits of (query, document) texts at the first output position."""
        from rerankdistill.encoding import map_batches

        if not pairs:
            return np.empty((0, len(self.options.tokens)), np.float32)
        model, tokens = self.model, self.tokens(pairs)
        return np.stack(map_batches(tokens, _forward(model), self.device, self.options.token_budget)).astype(np.float32)

    def tokens(self, pairs: Sequence[tuple[str, str]]) -> Tokens:
        """The prompts, tokenised; each fits :attr:`total`.

        Raises:
            CardError: the template and the query alone are longer than that.
        """
        from rerankdistill.encoding import Tokens

        queries, docs = _Cuts(self.tokenizer, [q for q, _ in pairs]), _Cuts(self.tokenizer, [d for _, d in pairs])
        asked = [queries.first(query, self.lengths.query or self.total // 2) for query, _ in pairs]
        distinct = list(dict.fromkeys(asked))
        frames = dict(zip(distinct, self._encode([self._prompt(query, "") for query in distinct]), strict=True))
        most = self.lengths.doc or self.total
        rooms = [min(most, self.total - len(frames[query]) + 1) for query in asked]
        rows: list[list[int]] = [[] for _ in pairs]
        over = list(range(len(pairs)))
        while over:
            texts = [self._prompt(asked[at], docs.first(pairs[at][1], rooms[at])) for at in over]
            for at, row in zip(over, self._encode(texts), strict=True):
                rows[at] = row
            over = [at for at in over if len(rows[at]) > self.total]
            for at in over:
                if rooms[at] <= 0:
                    fix = "raise lengths.total in the teacher's card, or lower lengths.query"
                    what = f"the prompt without a document has {len(rows[at])} tokens, more than {self.total}"
                    raise CardError(what, where=self.name, fix=fix)
                rooms[at] -= len(rows[at]) - self.total
        pad = self.tokenizer.pad_token_id or 0
        return Tokens(
            {"input_ids": rows, "attention_mask": [[1] * len(row) for row in rows]},
            {"input_ids": pad, "attention_mask": 0},
        )

    def _prompt(self, query: str, document: str) -> str:
        """The template filled in one go: what stands in a text is never taken for a place of the template."""
        parts = self.options.template.partition("{query}")
        if "{document}" in parts[0]:
            before, _, between = parts[0].partition("{document}")
            return f"{before}{document}{between}{query}{parts[2]}"
        between, _, after = parts[2].partition("{document}")
        return f"{parts[0]}{query}{between}{document}{after}"

    def _encode(self, prompts: Sequence[str]) -> list[list[int]]:
        rows: list[list[int]] = self.tokenizer(list(prompts), verbose=False)["input_ids"] if prompts else []
        return rows

    def _read(self, logits: FloatArray) -> FloatArray:
        """``[n]`` scores of ``[n, tokens]`` logits."""
        wide = logits.astype(np.float64)
        if self.options.reading == "logit":
            return logits[:, 0]
        margin = wide[:, 0] - wide[:, 1]
        return (margin if self.options.reading == "margin" else -np.logaddexp(0.0, -margin)).astype(np.float32)


class _Cuts:
    """Texts and where their tokens end, each tokenised once."""

    def __init__(self, tokenizer: Any, texts: Sequence[str]) -> None:
        distinct = list(dict.fromkeys(texts))
        options = {"add_special_tokens": False, "return_offsets_mapping": True, "verbose": False}
        spans = tokenizer(distinct, **options)["offset_mapping"] if distinct else []
        self._ends = {text: [end for _, end in span if end] for text, span in zip(distinct, spans, strict=True)}

    def first(self, text: str, count: int) -> str:
        """The text's first ``count`` tokens."""
        ends = self._ends[text]
        if count <= 0:
            return ""
        return text if len(ends) <= count else text[: ends[count - 1]]


def _rows(head: Any, ids: Sequence[int]) -> Any:
    """An output layer of these rows alone, always in float32: bfloat16 would tie scores in its own coarse steps."""
    import torch

    class Rows(torch.nn.Module):
        weight: Tensor
        bias: Tensor | None

        def __init__(self) -> None:
            super().__init__()
            rows = list(ids)
            self.register_buffer("weight", head.weight.detach()[rows].float())
            self.register_buffer("bias", None if head.bias is None else head.bias.detach()[rows].float())

        def forward(self, hidden: Tensor) -> Tensor:
            with torch.autocast(hidden.device.type, enabled=False):
                return torch.nn.functional.linear(hidden.float(), self.weight, self.bias)

    return Rows()


def _forward(model: Any) -> Any:
    """Tokenised prompts to ``[n, tokens]`` logits at the decoder's first position."""
    import torch

    start = model.config.decoder_start_token_id
    if start is None:
        start = model.config.pad_token_id or 0

    def run(features: dict[str, Tensor]) -> Tensor:
        ids = features["input_ids"]
        first = torch.full((len(ids), 1), start, dtype=torch.long, device=ids.device)
        logits: Tensor = model(**features, decoder_input_ids=first, use_cache=False).logits
        return logits[:, 0]

    return run


def _slices(sizes: Sequence[int]) -> list[slice]:
    ends = np.cumsum([0, *sizes]).tolist()
    return [slice(start, end) for start, end in pairwise(ends)]
