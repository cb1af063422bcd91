"""A language model that is asked whether the document helps to answer the query: one position is read, and of the
output layer the rows of *yes* and *no* alone. Or it says how likely the query is after the document: a small model,
which follows no instruction, ranks by that before it has learnt anything.

Pointwise students of larger language models: DeAR (Abdallah et al. 2025, arXiv:2508.16998) and Instruction Distillation
(Sun et al. 2023, arXiv:2311.01555); trained likelihoods: dos Santos et al. 2020, arXiv:2010.03073. Full training, or
LoRA. Saved as a plain transformers folder, adapters added in.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import model_validator

from rerankdistill import devices, packed
from rerankdistill.encoding import instead, load, model_fingerprint
from rerankdistill.errors import CardError, DataError
from rerankdistill.prompting import fill, next_ids, unasked
from rerankdistill.students.kinds._network import without_dropout
from rerankdistill.students.kinds._words import SAVED, Output, Question, WordOptions, WordReader, decide, few_rows
from rerankdistill.students.layers import keep_layers

if TYPE_CHECKING:
    from torch import Tensor

QUESTION = (
    "Does the passage help to answer the query? Reply with yes or no.\n\n"
    "Query: {query}\n\nPassage: {document}\n\nReply with yes or no."
)
ANSWER = "\nAnswer:"
"""What follows the question where no chat template begins the answer."""
LIKELIHOOD = "Passage: {document}\nPlease write a question based on this passage.\nQuestion: {query}"
"""UPR's (Sachan et al. 2022, arXiv:2204.07496)."""
WORDS = ("yes", "no")
MARK = "%%MESSAGE%%"


class CausalOptions(WordOptions):
    """What the student is made from; ``init`` may also be a gguf file, as ``package:NAME/FILE.gguf``."""

    output: Output | Literal["likelihood"] | None = None
    """Of words as of any such student; ``likelihood``: the query's mean log-probability per token, behind all that
    stands before it in the template, which ends with ``{query}``; no ``tokens`` are asked for."""
    layers: int | list[int] | None = None
    chat_template: Literal["auto", "none"] = "auto"
    """``auto``: the question is put to the model as a user's message where its tokenizer has a chat template; ``none``:
    the template is read as it is, and should end where the answer begins. A likelihood's is always read as it is."""
    weights: Literal["float32", "bfloat16"] = "float32"
    """What frozen weights are kept in; ``bfloat16`` halves a large model's memory, and its scores are coarser."""

    @model_validator(mode="after")
    def _trainable(self) -> Self:
        if self.weights != "float32" and self.lora is None:
            raise ValueError("weights = 'bfloat16' is for lora: what is trained is kept in float32")
        return self

    @model_validator(mode="after")
    def _unworded(self) -> Self:
        if self.output == "likelihood" and self.tokens:
            raise ValueError("output = 'likelihood' asks for no tokens")
        if self.output == "likelihood" and self.template and not self.template.endswith("{query}"):
            raise ValueError("output = 'likelihood' wants a template that ends with {query}")
        return self


class Kind(WordReader):
    """A causal language model in training, and in use: a :class:`rerankdistill.contracts.PairScorer`."""

    Options = CausalOptions
    name = "causal"

    @classmethod
    def create(cls, options: CausalOptions, device: str = "auto") -> Kind:
        """A new student from its options."""
        where = packed.resolve(options.init)
        student = cls._opened(
            packed.unpacked(where), options.revision, options, device, cls.source_fingerprint(options)
        )
        if options.layers is not None:
            keep_layers(student.network, options.layers)
        return student

    @classmethod
    def open(cls, folder: Path, options: CausalOptions, device: str = "auto") -> Kind:
        """A student that :meth:`save` wrote."""
        return cls._opened(str(folder), None, options, device, model_fingerprint(str(folder)))

    @staticmethod
    def source_fingerprint(options: CausalOptions) -> str:
        return packed.mark(packed.resolve(options.init), options.revision)

    @classmethod
    def _opened(cls, init: str, revision: str | None, options: CausalOptions, device: str, mark: str) -> Kind:
        model, tokenizer = _load(init, revision, options.weights)
        without_dropout(model, options.dropout)
        asks = _question(options, getattr(model.config, SAVED, None), tokenizer, init)
        return cls(model, tokenizer, options, asks, devices.choose(device), mark)

    def _forward(self, features: dict[str, Tensor]) -> Tensor:
        """Padding is on the right, where a causal model cannot see it: it needs no mask."""
        import torch

        if self.question.output == "likelihood":
            return self._likelihood(features)
        ids, output = features["input_ids"], self.network.get_output_embeddings()
        rows, last = torch.arange(len(ids), device=ids.device), features["attention_mask"].sum(1) - 1

        def at_the_end(hidden: Tensor) -> Tensor:
            return few_rows(output, self.question.token_ids, hidden[rows, last])[:, None]

        with instead(output, at_the_end):
            logits: Tensor = self.network(input_ids=ids, use_cache=False).logits
        return logits[:, 0]

    def _likelihood(self, features: dict[str, Tensor]) -> Tensor:
        """``[n, 1]`` mean log-probability of the tokens that are marked; 0 where none is."""
        import torch

        ids, output = features["input_ids"], self.network.get_output_embeddings()
        rows, places = torch.nonzero(features["asked"], as_tuple=True)

        def one_before(hidden: Tensor) -> Tensor:
            return few_rows(output, None, hidden[rows, places - 1])

        with instead(output, one_before):
            logits: Tensor = self.network(input_ids=ids, use_cache=False).logits
        logprobs = -torch.nn.functional.cross_entropy(logits, ids[rows, places], reduction="none")
        sums = logprobs.new_zeros(len(ids)).index_add(0, rows, logprobs)
        return (sums / features["asked"].sum(1).clamp(min=1))[:, None]


def _question(options: CausalOptions, saved: dict[str, Any] | None, tokenizer: Any, where: str) -> Question:
    """How the model is asked, in its chat format where that is wanted and it has one."""
    output = (saved or {}).get("output")
    likely = (options.output or output) == "likelihood"
    if likely != (output == "likelihood"):
        saved = None  # what the folder says is of the other way to read it
    if likely:
        return _likely(options, saved, tokenizer, where)
    chat = options.chat_template == "auto" and bool(getattr(tokenizer, "chat_template", None))
    asks = decide(options, saved, QUESTION if chat else QUESTION + ANSWER, WORDS)
    if chat and (options.template is not None or not saved):
        asks = asks.model_copy(update={"template": _framed(asks.template, tokenizer, where), "special_tokens": False})
    return asks.model_copy(update={"token_ids": tuple(next_ids(tokenizer, asks.template, asks.tokens, where))})


def _likely(options: CausalOptions, saved: dict[str, Any] | None, tokenizer: Any, where: str) -> Question:
    """The question of a likelihood. Raises CardError: the query is not tokenised behind what is before it."""
    known = saved or {}
    template = options.template or known.get("template", LIKELIHOOD)
    before, after = (tokenizer(text)["input_ids"] for text in (unasked(template), fill(template, "why", "")))
    if not before or after[: len(before)] != before or len(after) == len(before):
        what = "the tokenizer does not put the query's tokens behind those of the template"
        raise CardError(what, where=where, fix="end the template with a word or a sign, a space and {query}")
    most = options.max_tokens or int(known.get("max_tokens", 256))
    return Question(template=template, tokens=(), token_ids=(), output="likelihood", max_tokens=most)


def _framed(template: str, tokenizer: Any, where: str) -> str:
    """The template inside of what the chat template puts around a user's message."""
    from jinja2 import TemplateError

    try:
        text = str(tokenizer.apply_chat_template([{"role": "user", "content": MARK}], tokenize=False,
                                                 add_generation_prompt=True))  # fmt: skip
    except TemplateError as error:
        raise CardError(f"the chat template fails: {error}", where=where, fix="set chat_template = 'none'") from error
    if text.count(MARK) != 1:
        what = f"the chat template shows the user's message {text.count(MARK)} times"
        raise CardError(what, where=where, fix="set chat_template = 'none'")
    return text.replace(MARK, template)


def _load(init: str, revision: str | None, weights: str) -> tuple[Any, Any]:
    """Model (on the CPU) and tokenizer. Raises DataError: no whole causal language model."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    def build(path: str) -> Any:
        how = {"revision": revision, "dtype": getattr(torch, weights), "output_loading_info": True}
        return AutoModelForCausalLM.from_pretrained(path, **how)

    model, info = load(build, init)
    if info["missing_keys"]:
        what = f"the checkpoint lacks {len(info['missing_keys'])} of the model's weights"
        raise DataError(what, where=init, fix="name a whole language model, or use another kind")
    if not isinstance(model.get_output_embeddings(), torch.nn.Linear):
        raise DataError("the model's output layer is not one matrix", where=init, fix="name another language model")
    return model, load(lambda path: AutoTokenizer.from_pretrained(path, revision=revision), init)
