"""A T5-like encoder-decoder as a teacher, read at the first position it would write.

monoT5 (Nogueira, Jiang, Pradeep, Lin 2020, arXiv:2003.06713) reads ``Query: … Document: … Relevant:`` and says *true*
or *false*: both logits are kept, and the score is log P(true) between the two, or their margin. RankT5 (Zhuang et al.
2022, arXiv:2210.10634) reads the pair and is scored by the raw logit of one token that text never uses.

The decoder runs over one position, and the output layer holds the rows of the named tokens alone, so that a vocabulary
of 32 000 (mT5: 250 000) costs nothing. Everything before that layer, T5's scaling by d_model**-0.5 included, is the
model's own forward. Of a pair that is too long the document is cut; the template's end always arrives.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from pydantic import Field, field_validator, model_validator

from rerankdistill.cards import Card
from rerankdistill.errors import DataError
from rerankdistill.prompting import MONOT5, answer_ids, tokenise_prompts, whole
from rerankdistill.scores.kinds._model import ModelKind
from rerankdistill.types import Answer, FloatArray, Group, Scale

if TYPE_CHECKING:
    from torch import Tensor

    from rerankdistill.encoding import Tokens

DEFAULT_TOTAL = 512
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
        return whole(template)

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
        return answer_ids(self.tokenizer, self.options.tokens, self.name)

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
        rows = map_batches(tokens, _forward(model), self.device, self.options.token_budget, apart=True)
        return np.stack(rows).astype(np.float32)

    def tokens(self, pairs: Sequence[tuple[str, str]]) -> Tokens:
        """The prompts, tokenised; each fits :attr:`total`.

        Raises:
            CardError: the template and the query alone are longer than that.
        """
        return tokenise_prompts(
            self.tokenizer,
            self.options.template,
            pairs,
            self.total,
            query_tokens=self.lengths.query or self.total // 2,
            doc_tokens=self.lengths.doc,
            where=self.name,
            fix="raise lengths.total in the teacher's card, or lower lengths.query",
        )

    def _read(self, logits: FloatArray) -> FloatArray:
        """``[n]`` scores of ``[n, tokens]`` logits."""
        wide = logits.astype(np.float64)
        if self.options.reading == "logit":
            return logits[:, 0]
        margin = wide[:, 0] - wide[:, 1]
        return (margin if self.options.reading == "margin" else -np.logaddexp(0.0, -margin)).astype(np.float32)


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
