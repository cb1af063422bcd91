"""Opening the language model that a teacher's card names, on the machine at hand."""

from __future__ import annotations

import importlib.util
from typing import Any, Literal

from pydantic import Field, PositiveInt

from rerankdistill.cards import Card
from rerankdistill.scores.card import Context, ScorerCard
from rerankdistill.scores.llm.model import LanguageModel


class LocalOptions(Card):
    """How a language model is run here; the base of the options of every kind that prompts one.

    Attributes:
        adapter: a LoRA adapter (Hugging Face id, folder or ``package:NAME/PATH``) that is merged into the weights.
        share_prefix: whether the beginning that several questions share is computed once for all of them. ``auto``:
            wherever the model's cache can be shared, that is, where all of its layers attend to keys and values.
        token_budget: padded tokens a batch; decides speed and memory, and no score.
        chat_template: ``auto``: questions are laid out by the tokenizer's chat template where it has one; ``none``:
            system, user's message and answer are put one after the other as they are (a base model, or a prompt that
            is written out in the card).
        chat_options: what the chat template is told besides, as ``{ enable_thinking = false }``.
        engine: ``vllm``, ``transformers``, or ``auto``: vLLM where it is installed and there is a CUDA device.
    """

    adapter: str = ""
    share_prefix: Literal["auto"] | bool = "auto"
    token_budget: PositiveInt = 8192
    chat_template: Literal["auto", "none"] = "auto"
    chat_options: dict[str, Any] = Field(default_factory=dict)
    engine: Literal["auto", "transformers", "vllm"] = "auto"


HOW = frozenset(LocalOptions.model_fields)
"""The options above, which the model's own fingerprint takes care of: a kind leaves them out of its own."""


def open_model(card: ScorerCard, context: Context, options: LocalOptions) -> LanguageModel:
    """The model of a card; its weights are read when it is first asked something.

    The card gives model, revision, dtype and ``lengths.total`` (the most tokens of a question with its answer).
    """
    from rerankdistill import devices

    engine = options.engine
    if engine == "auto":
        # A gguf file is unpacked for transformers; vLLM reads few of them, and experimentally.
        fast = importlib.util.find_spec("vllm") is not None and not card.model.endswith(".gguf")
        fast = fast and devices.choose(context.device, card.dtype).name.startswith("cuda")
        engine = "vllm" if fast else "transformers"
    if engine == "vllm":
        from rerankdistill.scores.llm.vllm import VllmModel

        return VllmModel(card, context, options)
    from rerankdistill.scores.llm.local import LocalModel

    return LocalModel(card, context, options)
