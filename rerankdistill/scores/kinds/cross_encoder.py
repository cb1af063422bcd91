"""Any sentence-transformers CrossEncoder as a teacher, always by its raw logit.

The library puts a sigmoid on the score by default, and above about 0.99 bfloat16 then ties every good document. Here no
activation is ever applied. A model with two labels gives the margin of its logits, which is the log-odds.

Sequence classifiers are tokenised and batched by :mod:`rerankdistill.encoding`. Generative re-rankers (a causal
language model with a chat template, read at its last position) are prepared by the library, in batches of our own plan.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from rerankdistill.cards import Card
from rerankdistill.errors import DataError
from rerankdistill.scores.kinds._model import ModelKind
from rerankdistill.types import FloatArray, Group, Scale

if TYPE_CHECKING:
    from torch import Tensor

DEFAULT_TOTAL = 512
HEAD = re.compile(r"\.(classifier|score|lm_head)(\.|$)")
"""The scoring head's layers by the names that transformers gives them."""


class CrossEncoderOptions(Card):
    """How logits become one score.

    Attributes:
        output: ``margin``: logit of ``positive`` minus that of the other of two labels; ``logit``: that of
            ``positive`` alone; ``auto``: the only logit of a model with one label, the margin of one with two.
        positive: the label that means relevant, in a model with several.
        token_budget: padded tokens a batch.
    """

    output: Literal["auto", "margin", "logit"] = "auto"
    positive: int = 1
    token_budget: int = 16384


class Kind(ModelKind[CrossEncoderOptions]):
    """A cross-encoder by Hugging Face id, folder, or ``package:NAME/PATH``, loaded when first asked."""

    Options = CrossEncoderOptions
    kind = "cross_encoder"
    scale = Scale.LOGIT

    @cached_property
    def model(self) -> Any:
        """The ``CrossEncoder``, in float32 (products in :attr:`device`'s dtype), without an activation.

        Raises:
            DataError: not a model, or a model without a scoring head, whose scores would be random.
        """
        import torch
        from sentence_transformers import CrossEncoder

        from rerankdistill.encoding import load

        def build(path: str) -> Any:
            return CrossEncoder(
                path,
                revision=self.revision,
                device="cpu",
                activation_fn=torch.nn.Identity(),
                model_kwargs={"dtype": torch.float32},
            )

        loaded = load(build, self.name)
        architecture = (getattr(loaded.config, "architectures", None) or [""])[0]
        if not architecture.endswith(("ForSequenceClassification", "ForCausalLM", "ForConditionalGeneration")):
            what = f"this model has no scoring head (it is a {architecture or 'nameless model'}); its scores are random"
            raise DataError(what, where=self.name, fix="name a cross-encoder, or use kind = 'bi_encoder'")
        # In bfloat16 a logit of 9 comes in steps of 1/16, and good documents tie: the last layer stays in float32.
        loaded.set_keep_in_fp32_modules(
            [name for name, part in loaded.named_modules() if type(part) is torch.nn.Linear and HEAD.search(name)]
        )
        return loaded.to(self.device.name).eval()

    @property
    def total(self) -> int:
        """The most tokens that a pair is given."""
        limit = int(self.model.max_seq_length or DEFAULT_TOTAL)
        return min(self.lengths.total or limit, limit)

    def judge(self, groups: Sequence[Group]) -> list[FloatArray]:
        """Raw logits."""
        sizes = [len(group.doc_ids) for group in groups]
        queries = self._cut([group.query.text for group in groups], self.lengths.query)
        docs = self._cut([text for group in groups for text in group.texts], self.lengths.doc)
        paired = [query for query, size in zip(queries, sizes, strict=True) for _ in range(size)]
        scores = self.score(list(zip(paired, docs, strict=True)))
        return np.split(scores, np.cumsum(sizes)[:-1]) if groups else []

    def score(self, pairs: Sequence[tuple[str, str]]) -> FloatArray:
        """``[len(pairs)]`` raw logits of (query, document) texts."""
        if not pairs:
            return np.empty(0, np.float32)
        rows = self._classify(pairs) if self._plain else self._generate(pairs)
        return np.array([self._one(row) for row in rows], np.float32)

    @property
    def _plain(self) -> bool:
        """Whether pairs can be tokenised as they are: no chat template, no prompt of the model's own."""
        first = self.model[0]
        prompted = any(self.model.prompts.values())
        return first.transformer_task == "sequence-classification" and not (
            "message" in first.modality_config or prompted
        )

    def _classify(self, pairs: Sequence[tuple[str, str]]) -> list[Any]:
        from rerankdistill.encoding import map_batches, tokenise

        queries, docs = zip(*pairs, strict=True)
        tokens = tokenise(self.model.tokenizer, queries, self.total, docs)
        return map_batches(tokens, self._forward, self.device, self.options.token_budget, apart=True)

    def _generate(self, pairs: Sequence[tuple[str, str]]) -> list[Any]:
        """The library prepares these: template, prompt, padding on the left. Cut only the document, by itself, for a
        template that is cut at its end asks nothing any more."""
        import torch

        from rerankdistill.encoding import plan_batches

        model, total = self.model, self.lengths.total or DEFAULT_TOTAL
        room = max(total - self._count([query for query, _ in pairs]).max() - self._template(), 1)
        docs = self._cut([doc for _, doc in pairs], int(room))
        pairs = [(query, doc) for (query, _), doc in zip(pairs, docs, strict=True)]
        lengths = (self._count([query + doc for query, doc in pairs]) + self._template()).tolist()
        out: list[Any] = [None] * len(pairs)
        with torch.inference_mode(), self.device.autocast():
            for rows in plan_batches(lengths, self.options.token_budget):
                prompt = model.prompts.get(model.default_prompt_name)
                features = model.preprocess([pairs[row] for row in rows], prompt=prompt)
                moved = {k: v.to(self.device.name) if hasattr(v, "to") else v for k, v in features.items()}
                for row, value in zip(rows, self._forward(moved).float().cpu().numpy(), strict=True):
                    out[row] = value
        return out

    def _forward(self, features: dict[str, Tensor]) -> Tensor:
        scores: Tensor = self.model(features)["scores"]
        return scores

    def _template(self) -> int:
        """The tokens that the library puts around an empty pair."""
        prompt = self.model.prompts.get(self.model.default_prompt_name)
        features = self.model.preprocess([("", "")], prompt=prompt)
        return int(features["input_ids"].shape[1])

    def _one(self, logits: Any) -> float:
        logits = np.atleast_1d(logits)
        if len(logits) == 1:
            return float(logits[0])
        output, positive = self.options.output, self.options.positive
        if not 0 <= positive < len(logits):
            fix = "set options.positive in the teacher's card"
            raise DataError(f"label {positive} of a model with {len(logits)} labels", where=self.name, fix=fix)
        if output == "logit":
            return float(logits[positive])
        if len(logits) != 2:
            fix = "set options.output = 'logit' and options.positive in the teacher's card"
            raise DataError(f"a model with {len(logits)} labels has no one margin", where=self.name, fix=fix)
        return float(logits[positive] - logits[1 - positive])

    def _count(self, texts: Sequence[str]) -> Any:
        ids = self.model.tokenizer(list(texts), add_special_tokens=False)["input_ids"]
        return np.array([len(row) for row in ids], np.int64)

    def _cut(self, texts: Sequence[str], limit: int | None) -> list[str]:
        """The texts cut to ``limit`` tokens, without special ones."""
        if limit is None:
            return list(texts)
        distinct = list(dict.fromkeys(texts))
        spans = self.model.tokenizer(
            distinct, add_special_tokens=False, truncation=True, max_length=limit, return_offsets_mapping=True
        )["offset_mapping"]
        cut = {text: text[: span[-1][1]] if span else text for text, span in zip(distinct, spans, strict=True)}
        return [cut[text] for text in texts]
