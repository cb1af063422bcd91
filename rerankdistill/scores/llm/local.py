"""A causal language model that runs here, in transformers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from rerankdistill import devices, packed
from rerankdistill.artifacts import fingerprint
from rerankdistill.encoding import load
from rerankdistill.errors import CardError, DataError
from rerankdistill.kinds import missing
from rerankdistill.scores.card import Context, ScorerCard
from rerankdistill.scores.llm.layout import Layout
from rerankdistill.scores.llm.model import GREEDY, Ask, Sampling
from rerankdistill.scores.llm.open import LocalOptions
from rerankdistill.scores.llm.reader import Job, Reader
from rerankdistill.scores.llm.writer import write
from rerankdistill.types import FloatArray


class LocalModel:
    """A Hugging Face id, a folder, ``package:NAME/PATH`` or a gguf file, with a LoRA adapter merged into it if wished.

    The weights are in the dtype that :mod:`devices` chooses and attention runs through torch's fused kernels where the
    architecture has them; output layer and probabilities are always in float32.
    """

    exact = True
    engine = "transformers"

    def __init__(self, card: ScorerCard, context: Context | None = None, options: LocalOptions | None = None) -> None:
        self.card, self.context, self.options = card, context or Context(), options or LocalOptions()
        self._usage = dict.fromkeys(("prompt_tokens", "shared_tokens", "generated_tokens", "requests"), 0.0)
        self.usage: Mapping[str, float] = self._usage

    @cached_property
    def fingerprint(self) -> str:
        """Of weights or commit, adapter, dtype, the most tokens, the engine, and how a question is laid out."""
        mark = packed.mark(self.name, self.card.pinned_revision, lambda: self.model)
        adapter = packed.mark(packed.resolve(self.options.adapter, self.context.base)) if self.options.adapter else ""
        layout = self.options.model_dump(include={"chat_template", "chat_options"})
        return fingerprint(self.engine, mark, adapter, self.device.dtype, self.card.lengths.total, layout)

    @cached_property
    def name(self) -> str:
        """Where the model is: an id, a folder or a gguf file."""
        if not self.card.model:
            raise CardError("model is empty", where=f"teacher {self.card.name!r}", fix="name a language model")
        return packed.resolve(self.card.model, self.context.base)

    @cached_property
    def device(self) -> devices.Device:
        return devices.choose(self.context.device, self.card.dtype)

    @cached_property
    def limit(self) -> int:
        """The most tokens of a question with its answer."""
        config = self._config().get_text_config()
        known = [getattr(config, "max_position_embeddings", None), self.card.lengths.total]
        known.append(self.layout.tokenizer.model_max_length)
        return min((int(each) for each in known if each and each < 10**9), default=10**9)

    @cached_property
    def layout(self) -> Layout:
        from transformers import AutoTokenizer

        def build(path: str) -> Any:
            return AutoTokenizer.from_pretrained(path, revision=self.card.pinned_revision)

        tokenizer = load(build, packed.unpacked(self.name))
        return Layout(tokenizer, self.options.chat_template == "auto", self.options.chat_options)

    @cached_property
    def model(self) -> Any:
        """The ``…ForCausalLM`` in evaluation mode on its device."""
        import torch
        from transformers import AutoModelForCausalLM, GenerationConfig

        def build(path: str) -> Any:
            dtype = getattr(torch, self.device.dtype)
            return AutoModelForCausalLM.from_pretrained(path, revision=self.card.pinned_revision, dtype=dtype)

        loaded = load(build, packed.unpacked(self.name))
        if self.options.adapter:
            loaded = merged(loaded, packed.resolve(self.options.adapter, self.context.base))
        # What a checkout says of sampling and of penalties for repetition would change what greedy writing gives.
        ends = loaded.generation_config.eos_token_id
        ends = [ends] if isinstance(ends, int) else list(ends or ())
        ends = sorted({*ends, *(each for each in [self.layout.tokenizer.eos_token_id] if each is not None)})
        loaded.generation_config = GenerationConfig(do_sample=False, eos_token_id=ends or None, pad_token_id=0)
        return loaded.requires_grad_(False).to(self.device.name).eval()

    @cached_property
    def reader(self) -> Reader:
        """Runs the model.

        Raises:
            CardError: ``share_prefix = true``, and the model's cache cannot be shared.
        """
        reader = Reader(self.model, self.options.token_budget, self.limit)
        if self.options.share_prefix is True and not reader.share:
            what = "share_prefix = true, but this architecture keeps more than keys and values of what it has read"
            raise CardError(what, where=self.card.model, fix="leave options.share_prefix at 'auto'")
        reader.share = reader.share and self.options.share_prefix is not False
        return reader

    def fit(self, text: str, limit: int | None) -> str:
        """The text cut to ``limit`` tokens (None: left as it is)."""
        return self.layout.fit(text, limit)

    def choose(self, asks: Sequence[Ask], options: Sequence[str]) -> FloatArray:
        """``[len(asks), len(options)]`` raw logits of each option's first token, as it is tokenised right behind the
        question: ``" yes"`` and ``"yes"`` are different options, and which is meant is for the caller to say.

        Raises:
            CardError: two options begin with the same token, or one is empty.
            DataError: a question is longer than the model reads.
        """
        firsts = self.first_tokens(options)
        if not asks:
            return np.empty((0, len(options)), np.float32)
        jobs = [Job(head, tail) for head, tail in self.layout.split(asks)]
        self._check([job.length for job in jobs])
        found: FloatArray = self.reader.last(jobs, firsts).numpy()
        self._count(len(asks))
        return found

    def likelihood(self, asks: Sequence[Ask], texts: Sequence[str]) -> FloatArray:
        """``[len(asks)]`` mean log-probability per token of a text right behind each question; NaN of an empty text.

        Raises:
            DataError: a question and its text are longer than the model reads.
        """
        out = np.full(len(asks), np.nan, np.float32)
        targets = self.layout.encode(texts)
        rows = [row for row, tokens in enumerate(targets) if tokens]
        if not rows:
            return out
        jobs = []
        for row, (head, tail) in zip(rows, self.layout.split([asks[row] for row in rows]), strict=True):
            jobs.append(Job(head, [*tail, *targets[row][:-1]], len(targets[row])))
        self._check([job.length + 1 for job in jobs])
        out[rows] = self.reader.likelihood(jobs, [targets[row] for row in rows]).numpy()
        self._count(len(rows))
        return out

    def write(
        self, asks: Sequence[Ask], max_tokens: int, stop: Sequence[str] = (), how: Sampling = GREEDY
    ) -> list[str]:
        """What the model writes next, up to ``max_tokens`` tokens, its end of turn, or the first of ``stop``
        (left out).

        Raises:
            DataError: a question with ``max_tokens`` more is longer than the model reads.
        """
        if not asks:
            return []
        prompts = [[*head, *tail] for head, tail in self.layout.split(asks)]
        self._check([len(prompt) + max_tokens for prompt in prompts])
        texts, generated = write(
            self.model, self.layout.tokenizer, prompts, max_tokens, stop, self.options.token_budget, how
        )
        self._usage["prompt_tokens"] += sum(map(len, prompts))
        self._usage["generated_tokens"] += generated
        self._usage["requests"] += len(asks)
        return texts

    def first_tokens(self, options: Sequence[str]) -> list[int]:
        """The first token of each option.

        Raises:
            CardError: two are the same, or an option has none.
        """
        rows = self.layout.encode(options)
        seen: dict[int, str] = {}
        for option, row in zip(options, rows, strict=True):
            if not row:
                raise CardError(f"the option {option!r} has no tokens", where=self.card.model)
            if row[0] in seen:
                what = f"the options {seen[row[0]]!r} and {option!r} begin with the same token"
                fix = "choose words that this model tells apart, or put a space before both, or leave it out"
                raise CardError(what, where=self.card.model, fix=fix)
            seen[row[0]] = option
        return list(seen)

    def _config(self) -> Any:
        return self.model.config

    def _check(self, lengths: Sequence[int]) -> None:
        if max(lengths) > self.limit:
            what = f"a question of {max(lengths)} tokens (with its answer), but the model reads {self.limit}"
            raise DataError(what, where=self.card.model, fix="set a smaller lengths.doc in the teacher's card")

    def _count(self, requests: int) -> None:
        self._usage["prompt_tokens"] += self.reader.computed
        self._usage["shared_tokens"] += self.reader.saved
        self._usage["requests"] += requests
        self.reader.computed = self.reader.saved = 0


def merged(model: Any, adapter: str) -> Any:
    """The model with a LoRA adapter added into its weights.

    Raises:
        MissingDependency: peft is not installed.
        DataError: it is no adapter, or one for another model.
    """
    try:
        from peft import PeftModel
    except ModuleNotFoundError as error:
        raise missing(error, "options.adapter") from error
    try:
        return PeftModel.from_pretrained(model, adapter).merge_and_unload()
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DataError(f"the adapter cannot be loaded: {first}", where=adapter) from error
