"""The same questions put to vLLM, which batches and shares prefixes by itself.

Written against vLLM's documentation (its V1 engine with ``logprobs_mode``) and never run by the project's own tests,
which have no GPU: compare a few scores with ``options.engine = "transformers"`` before relying on it. Two things follow
from how vLLM works. An option's raw logit comes from masking all other tokens and asking for the logits after the
mask. A request for the log-probabilities of its own prompt is not served from the prefix cache, so
:meth:`VllmModel.likelihood` computes every question whole.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from rerankdistill import packed
from rerankdistill.errors import DataError
from rerankdistill.kinds import missing
from rerankdistill.scores.llm.local import LocalModel
from rerankdistill.scores.llm.model import GREEDY, Ask, Sampling
from rerankdistill.types import FloatArray

MOST_OPTIONS = 64
LORA_RANKS = (8, 16, 32, 64, 128, 256)


class VllmModel(LocalModel):
    """A model behind vLLM's offline engine. ``share_prefix = false`` turns its prefix cache off; ``token_budget`` is
    left to vLLM."""

    engine = "vllm"

    @cached_property
    def model(self) -> Any:
        """The ``LLM``.

        Raises:
            MissingDependency: vLLM is not installed.
            DataError: this vLLM cannot run the model, or cannot give raw logits.
        """
        try:
            from vllm import LLM
        except ModuleNotFoundError as error:
            raise missing(error, "options.engine = 'vllm'") from error
        lora = {"enable_lora": True, "max_lora_rank": self._rank()} if self.options.adapter else {}
        try:
            return LLM(
                model=packed.unpacked(self.name),
                revision=self.card.pinned_revision,
                dtype=self.device.dtype,
                enable_prefix_caching=self.options.share_prefix is not False,
                logprobs_mode="processed_logits",
                max_logprobs=MOST_OPTIONS,
                max_model_len=self.card.lengths.total,
                **lora,
            )
        except (ValueError, TypeError, NotImplementedError, RuntimeError, OSError) as error:
            first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            fix = "set options.engine = 'transformers' in the teacher's card"
            raise DataError(f"vLLM cannot run this: {first}", where=self.card.model, fix=fix) from error

    def choose(self, asks: Sequence[Ask], options: Sequence[str]) -> FloatArray:
        """``[len(asks), len(options)]`` raw logits of each option's first token; see :class:`LocalModel`."""
        firsts = self.first_tokens(options)
        if len(firsts) > MOST_OPTIONS:
            raise DataError(f"{len(firsts)} options, but vLLM is asked for {MOST_OPTIONS} at most")
        prompts = [[*head, *tail] for head, tail in self.layout.split(asks)]
        how = {"max_tokens": 1, "allowed_token_ids": firsts, "logprobs": len(firsts), "detokenize": False}
        out = np.full((len(asks), len(firsts)), np.nan, np.float32)
        for row, answer in enumerate(self._ask(prompts, how)):
            told = answer.outputs[0].logprobs[0]
            out[row] = [told[token].logprob if token in told else np.nan for token in firsts]
        return out

    def likelihood(self, asks: Sequence[Ask], texts: Sequence[str]) -> FloatArray:
        """``[len(asks)]`` mean log-probability per token of a text; NaN of an empty one."""
        out = np.full(len(asks), np.nan, np.float32)
        targets = self.layout.encode(texts)
        rows = [row for row, tokens in enumerate(targets) if tokens]
        split = self.layout.split([asks[row] for row in rows])
        prompts = [[*head, *tail, *targets[row]] for row, (head, tail) in zip(rows, split, strict=True)]
        how = {"max_tokens": 1, "prompt_logprobs": 1, "detokenize": False}
        for row, answer in zip(rows, self._ask(prompts, how), strict=True):
            told = answer.prompt_logprobs[-len(targets[row]) :]
            out[row] = np.mean([each[token].logprob for each, token in zip(told, targets[row], strict=True)])
        return out

    def write(
        self, asks: Sequence[Ask], max_tokens: int, stop: Sequence[str] = (), how: Sampling = GREEDY
    ) -> list[str]:
        """What the model writes next; see :class:`LocalModel`."""
        prompts = [[*head, *tail] for head, tail in self.layout.split(asks)]
        about = {"max_tokens": max_tokens, "stop": list(stop) or None, "skip_special_tokens": False}
        answers = self._ask(prompts, {**about, "temperature": how.temperature, "seed": how.seed})
        self._usage["generated_tokens"] += sum(len(answer.outputs[0].token_ids) for answer in answers)
        return [str(answer.outputs[0].text) for answer in answers]

    def _ask(self, prompts: Sequence[list[int]], how: dict[str, Any]) -> list[Any]:
        if not prompts:
            return []
        model = self.model
        from vllm import SamplingParams
        from vllm.lora.request import LoRARequest

        self._check([len(prompt) + how["max_tokens"] for prompt in prompts])
        adapter = self.options.adapter
        lora = LoRARequest("adapter", 1, packed.resolve(adapter, self.context.base)) if adapter else None
        answers: list[Any] = model.generate(
            [{"prompt_token_ids": prompt} for prompt in prompts],
            SamplingParams(**{"temperature": 0.0, **how}),
            lora_request=lora,
            use_tqdm=False,
        )
        cached = sum(answer.num_cached_tokens or 0 for answer in answers)
        self._usage["prompt_tokens"] += sum(map(len, prompts)) - cached
        self._usage["shared_tokens"] += cached
        self._usage["requests"] += len(prompts)
        return answers

    def _rank(self) -> int:
        """The least rank that vLLM can be told and that the adapter fits in; 64 where its file is not at hand."""
        config = Path(packed.resolve(self.options.adapter, self.context.base)) / "adapter_config.json"
        rank = int(json.loads(config.read_text("utf-8"))["r"]) if config.is_file() else 64
        return next((each for each in LORA_RANKS if each >= rank), rank)

    def _config(self) -> Any:
        return self.model.llm_engine.model_config.hf_config
