"""The forward passes: what a causal model says at the ends of sequences, computing no logits but those asked for.

Sequences that begin alike are run as one pass over the beginning, whose keys and values are then laid under a batch of
the endings. Sequences are padded on the right, where a causal model cannot see the padding, so neither masks nor
positions change and what is left of the padding is what an unpadded sequence would give.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from rerankdistill.encoding import instead, plan_batches

if TYPE_CHECKING:
    from torch import Tensor

LEAST_SHARED = 8
"""Shorter beginnings are not worth a pass of their own."""
WIDTH = 8
"""Batches are padded to a multiple of it."""
LEAST_ROWS = 4
"""A batch with fewer sequences is filled up with shorter ones."""
CACHED_PER_TOKEN = 4
"""A batch may lay its endings over so many times as many cached tokens as it computes."""
SHAREABLE = frozenset({"DynamicLayer", "DynamicSlidingWindowLayer"})
"""The layers of a cache whose keys and values grow by making new tensors."""
LOGITS_BYTES = 2**28
"""The most memory for float32 logits over the whole vocabulary at a time."""
VOCABULARY_ROWS = 16384
"""So many rows of an output layer in half precision are widened to float32 at a time."""


class Job(NamedTuple):
    """Tokens to run. The logits after its last ``keep`` tokens are wanted; ``tail`` has at least so many."""

    head: tuple[int, ...]
    tail: list[int]
    keep: int = 1

    @property
    def length(self) -> int:
        return len(self.head) + len(self.tail)


class Batch(NamedTuple):
    """Rows to run at once; behind ``head``, or each whole where that is None."""

    head: tuple[int, ...] | None
    rows: list[int]


class Reader:
    """Runs a loaded causal language model.

    Args:
        model: a transformers ``…ForCausalLM`` in evaluation mode.
        token_budget: padded tokens a batch.
        limit: the most tokens of a sequence, which padding must not pass either.

    Attributes:
        share: whether endings are laid over a beginning that they share; at first, whether the model's cache can.
        computed, saved: the tokens that were computed, and those that sharing saved.
    """

    def __init__(self, model: Any, token_budget: int, limit: int) -> None:
        self.model, self.token_budget, self.limit = model, token_budget, limit
        self.output = model.get_output_embeddings()
        self.computed = self.saved = 0
        self.share, self.swaps = self._try()
        self._known: tuple[tuple[int, ...], Any] = ((), None)

    def last(self, jobs: Sequence[Job], columns: Sequence[int]) -> Tensor:
        """``[len(jobs), len(columns)]`` float32 logits of these tokens of the vocabulary after each job's tokens."""
        import torch

        out = torch.empty(len(jobs), len(columns))
        few = Columns(self.output, list(columns))
        for batch in self._plan(jobs):
            out[batch.rows] = self._run(batch, jobs, few).cpu()
        return out

    def likelihood(self, jobs: Sequence[Job], targets: Sequence[Sequence[int]]) -> Tensor:
        """``[len(jobs)]`` float32: the mean log-probability of a job's ``keep`` targets, one after each of its last
        ``keep`` tokens."""
        import torch

        out = torch.empty(len(jobs))
        every = Columns(self.output, None)
        for batch in self._plan(jobs, max(1, LOGITS_BYTES // (4 * self.output.weight.shape[0]))):
            logits = self._run(batch, jobs, every)
            wanted = torch.tensor([token for row in batch.rows for token in targets[row]], device=logits.device)
            totals = torch.cat([part.logsumexp(1) for part in torch.split(logits, 128)])
            each = logits.gather(1, wanted[:, None])[:, 0] - totals
            parts = torch.split(each, [jobs[row].keep for row in batch.rows])
            out[batch.rows] = torch.stack([part.mean() for part in parts]).cpu()
        return out

    def _plan(self, jobs: Sequence[Job], most: int | None = None) -> Iterator[Batch]:
        """Jobs that begin alike together, the rest by length. ``most``: positions with logits a batch."""
        groups: dict[tuple[int, ...], list[int]] = {}
        for row, job in enumerate(jobs):
            groups.setdefault(job.head, []).append(row)
        alone = []
        for head, rows in groups.items():
            if not self.share or len(rows) < 2 or len(head) < LEAST_SHARED:
                alone += rows
                continue
            costs = [max(len(jobs[row].tail), -(-jobs[row].length // CACHED_PER_TOKEN)) for row in rows]
            for batch in self._batches(jobs, rows, costs, most):
                yield Batch(head, batch)
            self._known = ((), None)
        for batch in self._batches(jobs, alone, [jobs[row].length for row in alone], most):
            yield Batch(None, batch)

    def _batches(self, jobs: Sequence[Job], rows: list[int], costs: list[int], most: int | None) -> Iterator[list[int]]:
        for planned in plan_batches(costs, self.token_budget, LEAST_ROWS):
            batch: list[int] = []
            kept = 0
            for row in (rows[at] for at in planned):
                if batch and most is not None and kept + jobs[row].keep > most:
                    yield batch
                    batch, kept = [], 0
                batch.append(row)
                kept += jobs[row].keep
            yield batch

    def _run(self, batch: Batch, jobs: Sequence[Job], columns: Columns) -> Tensor:
        """``[kept positions of the batch, columns]`` float32 logits, row by row."""
        import torch

        cache = None if batch.head is None else spread(self._beginning(batch.head), len(batch.rows))
        lead = len(batch.head or ())
        texts = [jobs[row].tail if batch.head is not None else [*jobs[row].head, *jobs[row].tail] for row in batch.rows]
        keeps = [jobs[row].keep for row in batch.rows]
        rows = torch.tensor([at for at, keep in enumerate(keeps) for _ in range(keep)])
        places = torch.tensor([len(t) - keep + n for t, keep in zip(texts, keeps, strict=True) for n in range(keep)])
        self.computed += sum(map(len, texts))
        self.saved += lead * len(texts)
        return self._forward(pad(texts, self.limit - lead), cache, rows, places, columns)[0]

    def _beginning(self, head: tuple[int, ...]) -> Any:
        """The cache after a beginning, kept until another one is asked for."""
        import torch

        if self._known[0] != head:
            last = torch.tensor([len(head) - 1])
            one = Columns(self.output, [0])
            cache = self._forward(torch.tensor([head]), None, torch.tensor([0]), last, one, caching=True)[1]
            self._known = (head, cache)
            self.computed += len(head)
            self.saved -= len(head)
        return self._known[1]

    def _forward(
        self, block: Tensor, cache: Any, rows: Tensor, places: Tensor, columns: Columns, caching: bool = False
    ) -> tuple[Tensor, Any]:
        """``[len(rows), columns]`` logits at these places of the block, and the cache.

        The model's own pass is run with :class:`Columns` in the place of its output layer, so that whatever the
        architecture does to logits afterwards (a scale, a soft cap) is done to these few too.
        """
        import torch

        device = self.model.device
        rows, places, block = rows.to(device), places.to(device), block.to(device)
        use = caching or cache is not None
        with torch.inference_mode():
            if not self.swaps:
                out = self.model(input_ids=block, past_key_values=cache, use_cache=use)
                found = out.logits[rows, places]
                found = found if columns.chosen is None else found[:, columns.chosen]
            else:
                with instead(self.output, lambda hidden: columns(hidden[rows, places])[None]):
                    out = self.model(input_ids=block, past_key_values=cache, use_cache=use)
                found = out.logits[0]
        return found.float(), getattr(out, "past_key_values", None)

    def _try(self) -> tuple[bool, bool]:
        """Whether this architecture's cache can be shared, and whether its output layer can be stood in for."""
        import torch

        self.swaps = False
        ids = torch.arange(1, 5)[None] % self.output.weight.shape[0]
        rows, places, chosen = torch.zeros(2, dtype=torch.long), torch.tensor([1, 3]), Columns(self.output, [0, 1, 2])
        direct, cache = self._forward(ids, None, rows, places, chosen, caching=True)
        layers = getattr(cache, "layers", ())
        shares = bool(layers) and all(type(layer).__name__ in SHAREABLE for layer in layers)
        if not isinstance(self.output, torch.nn.Linear):
            return shares, False
        self.swaps = True
        try:
            swapped, _ = self._forward(ids, None, rows, places, chosen)
        except (RuntimeError, IndexError, TypeError):  # this pass does more with its output layer than call it
            return shares, False
        near = torch.allclose(direct, swapped, rtol=0.05, atol=float(0.05 * direct.abs().max()))
        return shares, near


class Columns:
    """An output layer cut to a few tokens of the vocabulary (None: all of it), in float32 whatever the model is in:
    logits of about 20 come in steps of 1/8 in bfloat16, and documents tie."""

    def __init__(self, output: Any, chosen: list[int] | None) -> None:
        self.output, self.chosen = output, chosen
        if chosen is not None:
            self.weight = output.weight[chosen].float()
            self.bias = None if getattr(output, "bias", None) is None else output.bias[chosen].float()

    def __call__(self, hidden: Tensor) -> Tensor:
        """``[n, h]`` hidden states to ``[n, columns]`` float32 logits."""
        import torch

        linear, hidden = torch.nn.functional.linear, hidden.float()
        if self.chosen is not None:
            return linear(hidden, self.weight, self.bias)
        weight, bias = self.output.weight, getattr(self.output, "bias", None)
        if weight.dtype == torch.float32:
            return linear(hidden, weight, bias)
        out = torch.cat([linear(hidden, part.float()) for part in torch.split(weight, VOCABULARY_ROWS)], 1)
        return out if bias is None else out + bias.float()


def spread(cache: Any, rows: int) -> Any:
    """A cache of one row as a cache of several, without a copy: growing it makes the copy, and leaves the one alone."""
    wide = copy.copy(cache)
    wide.layers = [copy.copy(layer) for layer in cache.layers]
    for layer in wide.layers:
        if layer.is_initialized:
            layer.keys = layer.keys.expand(rows, -1, -1, -1)
            layer.values = layer.values.expand(rows, -1, -1, -1)
    return wide


def pad(texts: Sequence[Sequence[int]], limit: int) -> Tensor:
    """``[len(texts), width]`` int64, padded on the right to a multiple of :data:`WIDTH` or to the limit."""
    import torch

    widest = max(map(len, texts))
    block = torch.zeros(len(texts), max(widest, min(-(-widest // WIDTH) * WIDTH, limit)), dtype=torch.long)
    for at, text in enumerate(texts):
        block[at, : len(text)] = torch.tensor(text)
    return block
