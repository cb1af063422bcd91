"""BERT without padding: the tokens of all texts lie in one row, and only attention looks at texts one by one.

What it costs a processor is the tokens there are, not the longest text times the number of texts, and a layer is a
dozen calls. Where only a text's first token is asked for, the last layer computes that alone. It says what
transformers' ``BertModel`` does; :func:`agrees` holds it to that when a model is opened.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from rerankdistill import devices
from rerankdistill.encoding import Tokens
from rerankdistill.serving.linear import Linear, rounded
from rerankdistill.types import FloatArray

if TYPE_CHECKING:
    from torch import Tensor

CHUNK = 1024
"""Tokens that go through the layers together: more do not make a core faster."""
EQUAL = 0.9999
"""The cosine with the library's own output below which this is not used."""


@dataclass(frozen=True)
class Head:
    """What follows the layers: ``compute`` makes ``[n, …]`` of the last one's ``[tokens, d]``, or, where ``first``, of
    the ``[n, d]`` of each text's first token."""

    compute: Callable[[Tensor, Layout], Tensor]
    first: bool


class Group(NamedTuple):
    """``texts`` texts of ``width`` tokens each, one after another from ``first`` on."""

    first: int
    texts: int
    width: int


@dataclass(frozen=True)
class Layout:
    """Where the texts lie in a row of tokens, sorted by length: ``starts [n]``, ``lengths [n]``, int64."""

    starts: Tensor
    lengths: Tensor
    groups: list[Group]
    count: int
    """Of tokens."""

    @classmethod
    def of(cls, lengths: Sequence[int]) -> Layout:
        """Of texts in ascending length."""
        import torch

        sizes, groups, first = torch.tensor(lengths), [], 0
        for width, same in groupby(lengths):
            groups.append(Group(first, len(list(same)), width))
            first += groups[-1].texts * width
        return cls(torch.cumsum(sizes, 0) - sizes, sizes, groups, first)


class Unpadded:
    """A ``BertModel`` and a head, as a network.

    Args:
        dtype: of the weights and of what flows between them, by torch's name.
    """

    def __init__(self, body: Any, head: Head, dtype: str) -> None:
        import torch

        self._dtype, self._head = getattr(torch, dtype), head
        self._embeddings, self._heads = body.embeddings, body.config.num_attention_heads
        last = body.encoder.layer[-1]
        with torch.inference_mode():
            self._layers = [Layer(each, self._dtype, head.first and each is last) for each in body.encoder.layer]

    def __call__(self, tokens: Tokens, threads: int = 0) -> FloatArray:
        import torch

        devices.take_threads(threads)
        lengths = tokens.lengths
        order = sorted(range(len(lengths)), key=lengths.__getitem__)
        found = []
        with torch.inference_mode():
            for some in chunks([lengths[row] for row in order]):
                found.append(self._forward(tokens, [order[at] for at in some]).float().numpy())
        rows = np.concatenate(found)
        out = np.empty_like(rows)
        out[order] = rows
        return out

    def _forward(self, tokens: Tokens, rows: Sequence[int]) -> Tensor:
        layout = Layout.of([len(tokens.columns["input_ids"][row]) for row in rows])
        flow, count = self._embedded(tokens, rows, layout), len(rows) if self._head.first else layout.count
        for layer in self._layers:
            flow = layer(flow, layout, self._heads)
        return self._head.compute(flow[:count], layout)

    def _embedded(self, tokens: Tokens, rows: Sequence[int], layout: Layout) -> Tensor:
        import torch

        def flat(name: str) -> Tensor:
            return torch.tensor([value for row in rows for value in tokens.columns[name][row]])

        ids = flat("input_ids")
        places = torch.arange(len(ids)) - torch.repeat_interleave(layout.starts, layout.lengths)
        own = self._embeddings
        flow = own.word_embeddings(ids) + own.position_embeddings(places)
        if "token_type_ids" in tokens.columns:
            flow += own.token_type_embeddings(flat("token_type_ids"))
        else:
            flow += own.token_type_embeddings.weight[0]
        normed: Tensor = own.LayerNorm(flow)
        return with_rest(normed.to(self._dtype))


class Layer:
    """One layer's weights; queries, keys and values in one matrix, or, where ``first``, which computes no more than the
    texts' first tokens, keys and values."""

    def __init__(self, layer: Any, dtype: Any, first: bool = False) -> None:
        own, out, wide, narrow = layer.attention.self, layer.attention.output, layer.intermediate, layer.output

        def linear(*parts: Any, gelu: bool = False) -> Linear:
            return Linear([part.weight for part in parts], [part.bias for part in parts], dtype, gelu)

        self.first = linear(own.query) if first else None
        self.apart = linear(own.key, own.value) if first else linear(own.query, own.key, own.value)
        self.joined, self.narrow = linear(out.dense), linear(narrow.dense)
        self.wide = linear(wide.dense, gelu=True)
        self.norms = [
            (norm.normalized_shape, norm.weight.detach().to(dtype), norm.bias.detach().to(dtype), norm.eps)
            for norm in (out.LayerNorm, narrow.LayerNorm)
        ]

    def __call__(self, flow: Tensor, layout: Layout, heads: int) -> Tensor:
        """``[tokens, d]`` to the same, or to ``[n, d]`` of the texts' first tokens; in both some more rows than that,
        whose values mean nothing."""
        from torch.nn.functional import layer_norm

        size = flow.shape[1]
        mixed = self.apart(flow)
        if self.first:
            flow = with_rest(flow[layout.starts])
            asked, others = self.first(flow), mixed
        else:
            asked, others = mixed[:, :size], mixed[:, size:]
        seen = attend(asked, others, layout.groups, heads, self.first is not None)
        flow = layer_norm(self.joined.plus(seen, flow), *self.norms[0])
        return layer_norm(self.narrow.plus(self.wide(flow), flow), *self.norms[1])


def with_rest(rows: Tensor) -> Tensor:
    """``[n, d]`` and, below, rows of zeros: see :func:`rerankdistill.serving.linear.rounded`."""
    import torch

    return torch.nn.functional.pad(rows, (0, 0, 0, rounded(len(rows)) - len(rows)))


def attend(asked: Tensor, others: Tensor, groups: Sequence[Group], heads: int, first: bool) -> Tensor:
    """What each text sees of itself, and of no other.

    Args:
        asked: the queries of all tokens ``[tokens, d]``, or, where ``first``, of each text's first one ``[n, d]``, and
            rows that belong to none; the result has its shape.
        others: keys and values of all tokens, ``[tokens, 2 d]``.
    """
    import torch

    out, at = torch.empty(asked.shape, dtype=asked.dtype), 0
    for start, texts, width in groups:
        each = 1 if first else width
        rows = slice(at, at + texts * each)
        one = asked[rows].view(texts, each, heads, -1).transpose(1, 2)
        both = others[start : start + texts * width].view(texts, width, 2, heads, -1).permute(2, 0, 3, 1, 4)
        seen = torch.nn.functional.scaled_dot_product_attention(one, *both)
        out[rows] = seen.transpose(1, 2).reshape(texts * each, -1)
        at = rows.stop
    out[at:] = 0
    return out


def chunks(lengths: Sequence[int]) -> list[range]:
    """Ranges of at most :data:`CHUNK` tokens, but one text at least."""
    found, first, size = [], 0, 0
    for at, length in enumerate(lengths):
        if size and size + length > CHUNK:
            found.append(range(first, at))
            first, size = at, 0
        size += length
    return [*found, range(first, len(lengths))]


def mean_head(unit: bool) -> Head:
    """The mean of a text's tokens; of length one where ``unit``."""

    def mean(flow: Tensor, layout: Layout) -> Tensor:
        import torch

        sums = torch.segment_reduce(flow.float(), "sum", lengths=layout.lengths, axis=0)
        vectors: Tensor = sums / layout.lengths[:, None]
        return _unit(vectors) if unit else vectors

    return Head(mean, first=False)


def first_head(unit: bool) -> Head:
    """The vector of the first token; of length one where ``unit``."""
    return Head(lambda flow, _: _unit(flow.float()) if unit else flow.float(), first=True)


def score_head(model: Any) -> Head:
    """A classifier's one logit, from the pooled first token."""

    def logits(flow: Tensor, _: Layout) -> Tensor:
        found: Tensor = model.classifier(model.bert.pooler(flow.float()[:, None]))
        return found[:, 0]

    return Head(logits, first=True)


def _unit(vectors: Tensor) -> Tensor:
    from torch.nn.functional import normalize

    return normalize(vectors, dim=-1)


def agrees(mine: FloatArray, theirs: FloatArray) -> bool:
    """Whether ``[n, d]`` vectors, or ``[n]`` scores, are those of the library."""
    if theirs.ndim == 1:
        return bool(np.abs(mine - theirs).max() <= 1e-2 * max(1.0, float(np.abs(theirs).max())))
    lengths = np.linalg.norm(mine, axis=1) * np.linalg.norm(theirs, axis=1)
    return bool(((mine * theirs).sum(1) >= EQUAL * lengths).all())
