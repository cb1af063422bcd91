"""Writing in batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rerankdistill.encoding import plan_batches
from rerankdistill.scores.llm.model import GREEDY, Sampling

if TYPE_CHECKING:
    from torch import Tensor

LEAST_ROWS = 4


def write(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[list[int]],
    max_tokens: int,
    stop: Sequence[str],
    token_budget: int,
    how: Sampling = GREEDY,
) -> tuple[list[str], int]:
    """What a model writes after each prompt, up to a stop string (left out) or the end of its turn; and the number of
    tokens that it wrote in all.

    Prompts are padded on the left, so that all of a batch go on at the same place; the padding is masked.
    """
    import torch
    from transformers import StoppingCriteriaList

    texts, written = [""] * len(prompts), 0
    drawn = {"do_sample": True, "temperature": how.temperature} if how.temperature else {"do_sample": False}
    if how.temperature:
        torch.manual_seed(how.seed)
    ends = set(model.generation_config.eos_token_id or ())
    for rows in plan_batches([len(prompt) + max_tokens for prompt in prompts], token_budget, LEAST_ROWS):
        width = max(len(prompts[row]) for row in rows)
        block, mask = torch.zeros(2, len(rows), width, dtype=torch.long)
        for at, row in enumerate(rows):
            block[at, width - len(prompts[row]) :] = torch.tensor(prompts[row])
            mask[at, width - len(prompts[row]) :] = 1
        stops = StoppingCriteriaList([Stops(tokenizer, stop, width)] if stop else [])
        with torch.inference_mode():
            out = model.generate(
                block.to(model.device),
                attention_mask=mask.to(model.device),
                max_new_tokens=max_tokens,
                stopping_criteria=stops,
                **drawn,
            )
        for row, ids in zip(rows, out[:, width:].tolist(), strict=True):
            texts[row], count = finish(tokenizer, ids, ends, stop)
            written += count
    return texts, written


class Stops:
    """Says which rows have written a stop string by now."""

    def __init__(self, tokenizer: Any, stop: Sequence[str], width: int) -> None:
        self.tokenizer, self.stop, self.width = tokenizer, tuple(stop), width
        # A stop string is never more tokens than bytes; the last tokens of it are all that is new.
        self.reach = max(len(each.encode()) for each in self.stop) + 1

    def __call__(self, ids: Tensor, scores: Any = None, **kwargs: Any) -> Tensor:  # noqa: ARG002
        import torch

        recent = ids[:, max(self.width, ids.shape[1] - self.reach) :].tolist()
        told = self.tokenizer.batch_decode(recent, clean_up_tokenization_spaces=False)
        return torch.tensor([any(each in text for each in self.stop) for text in told], device=ids.device)


def finish(tokenizer: Any, ids: list[int], ends: set[int], stop: Sequence[str]) -> tuple[str, int]:
    """The text of what was written before an end of turn or a stop string, and how many tokens it took to write."""
    at = next((n for n, token in enumerate(ids) if token in ends), None)
    kept = ids if at is None else ids[:at]
    text: str = tokenizer.decode(kept, clean_up_tokenization_spaces=False)
    found = [place for each in stop if (place := text.find(each)) >= 0]
    if not found:
        return text, len(kept) + (at is not None)
    first = min(found)
    for count in range(1, len(kept) + 1):  # what comes after the stop string is padding, and was not written
        told = tokenizer.decode(kept[:count], clean_up_tokenization_spaces=False)
        if any(each in told for each in stop):
            return text[:first], count
    return text[:first], len(kept)
