"""A student learns from the inside of a model whose vocabulary it shares, on texts alone: no query, no label.

``hidden``: the vectors of every token, layer by layer. Of a student with L_S layers layer l follows layer
round(l L_T / L_S) of the teacher, the embeddings the embeddings; where the two differ in width a linear map, learnt
along with the student and thrown away after it, takes the student's vectors to the teacher's width (Jiao et al. 2019,
TinyBERT, arXiv:1909.10351; for rankers Gao, Dai, Callan 2020, arXiv:2007.11088). Any loss on vectors: ``embed_mse``.

``relations``: how alike the queries, the keys and the values of the tokens of a text are in the last layer's
self-attention, head by head (Wang et al. 2020, MiniLMv2, arXiv:2012.15828): a softmax over a text's tokens for each of
its tokens, which a student of any width and depth can match without a map. A token's relations are a list, and any loss
on lists does: ``kl_div``. Both sides are cut into as many heads as the teacher has, or fewer where widths want it.

``attention``: how much the tokens attend to each other, in every layer and head, before the softmax (TinyBERT): lists
as well, for ``pointwise_mse``; layers belong together as for ``hidden``.

The teacher reads the same tokens and is frozen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import gcd
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from rerankdistill.contracts import Scores, Vectors
from rerankdistill.encoding import Tokens, load, load_bi_encoder, plan_batches, tokenise
from rerankdistill.errors import CardError, DataError
from rerankdistill.students.layers import stack_of

if TYPE_CHECKING:
    from torch import Tensor

    from rerankdistill.students.batch import Budget

Level = Literal["hidden", "relations", "attention"]
PROJECTIONS = (("query", "key", "value"), ("q_lin", "k_lin", "v_lin"), ("q_proj", "k_proj", "v_proj"), ("q", "k", "v"))
"""What models call the three matrices of an attention."""
FUSED = ("Wqkv", "c_attn")
"""And what they call one that holds all three."""
FEWEST = 16
"""Texts that go through the models together at least."""


class Inside(NamedTuple):
    """A model without a head, and its tokenizer."""

    body: Any
    tokenizer: Any


@dataclass(slots=True)
class InnerBatch:
    """One step: texts that both models read."""

    texts: list[str]
    rows: list[int]
    lesson: Inner

    def __len__(self) -> int:
        return len(self.texts)

    def scores(self, student: Any, budget: Budget) -> Scores:
        """The record that losses read."""
        return self.lesson.scores(student, self.texts, self.rows, budget)


class Inner:
    """What a stage on the inside of a model learns from.

    Args:
        tokens: a text is cut there.
        shuffled: a seed, to teach nonsense: every token is told what belongs to another.
    """

    def __init__(
        self, texts: Sequence[str], teacher: Inside, level: Level, tokens: int, shuffled: int | None = None
    ) -> None:
        self.texts, self.teacher, self.level, self.tokens, self.shuffled = texts, teacher, level, tokens, shuffled
        self.teacher.body.requires_grad_(False).eval()
        self.learnt: Any = None

    @property
    def count(self) -> int:
        return len(self.texts)

    def item(self, row: int, epoch: int) -> int:  # noqa: ARG002
        return row

    def collate(self, items: Sequence[int]) -> InnerBatch:
        return InnerBatch([self.texts[row] for row in items], list(items), self)

    def beside(self, student: Any) -> Any:
        """What is learnt with the student in this stage alone: the map to the teacher's width, or None.

        Raises:
            CardError: the two do not read the same tokens.
        """
        import torch

        own, theirs = inside_of(student), self.teacher
        if own.tokenizer.get_vocab() != theirs.tokenizer.get_vocab():
            what = f"level = {self.level!r} matches token by token, and student and teacher have other vocabularies"
            raise CardError(what, where="match", fix="begin with some of the teacher's layers, or match level = 'text'")
        theirs.body.to(next(own.body.parameters()).device)
        widths = [each.body.config.hidden_size for each in (own, theirs)]
        if self.level == "hidden" and widths[0] != widths[1]:
            self.learnt = torch.nn.Linear(*widths)
        return self.learnt

    def scores(self, student: Any, texts: Sequence[str], rows: Sequence[int], budget: Budget) -> Scores:
        """Of ``hidden`` with ``vectors [tokens x layers, d]``; else with a list for each layer, head and token."""
        import torch

        own = inside_of(student)
        tokens = tokenise(own.tokenizer, texts, self.tokens)
        read = self._hidden if self.level == "hidden" else self._relations
        with student.device.autocast():
            parts = [read(own, batch) for batch in _batches(tokens, budget, str(next(own.body.parameters()).device))]
        if self.level == "hidden":
            mine, theirs = (torch.cat(side) for side in zip(*parts, strict=True))
            return Scores(torch.empty(0), vectors=Vectors(mine, self._mixed(theirs, None, rows)))
        width = max(part[0].shape[1] for part in parts)
        mine, theirs, there = (torch.cat([_wide(each, width) for each in side]) for side in zip(*parts, strict=True))
        none = torch.full((len(mine),), -1, device=mine.device)
        theirs = self._mixed(theirs, there, rows)
        return Scores(mine, theirs, there, there, there, torch.zeros_like(mine), none, torch.zeros_like(there))

    def _hidden(self, own: Inside, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """``[tokens x (layers + 1), d_T]`` of the student, mapped, and of the teacher."""
        import torch

        mine = _states(own.body, batch)
        with torch.no_grad():
            theirs = _states(self.teacher.body, batch)
        theirs = [theirs[at] for at in _heights(len(mine) - 1, len(theirs) - 1)]
        there = batch["attention_mask"].bool()
        left, right = (torch.cat([state[there] for state in side]).float() for side in (mine, theirs))
        return left if self.learnt is None else self.learnt(left).float(), right

    def _relations(self, own: Inside, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """``[lists, length]`` of the student and of the teacher, and which of it are tokens."""
        import torch

        depths = [len(stack_of(body)) for body in (own.body, self.teacher.body)]
        whole = _heights(*depths)[1:] if self.level == "attention" else depths[1:]
        layers = range(depths[0]) if self.level == "attention" else [depths[0] - 1]
        mine = self._pairs(own.body, batch, layers)
        with torch.no_grad():
            theirs = self._pairs(self.teacher.body, batch, [at - 1 for at in whole])
        heads = gcd(_heads(self.teacher.body), *(part.shape[-1] for both in (*mine, *theirs) for part in both))
        there = batch["attention_mask"].bool()
        kept = there[:, None, :].expand(-1, heads, -1)
        keys = there[:, None, None, :].expand(-1, heads, there.shape[1], -1)[kept]
        left, right = (torch.cat([_alike(*both, heads)[kept] for both in side]) for side in (mine, theirs))
        return left, right, keys.repeat(len(mine), 1)

    def _pairs(self, body: Any, batch: dict[str, Tensor], layers: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
        """What is held against what: queries, keys and values against themselves, or queries against keys."""
        found = _attended(body, batch, layers)
        if self.level == "attention":
            if found[0][0].shape != found[0][1].shape:
                what = "several queries share a key in this model"
                raise DataError(what, where="level = 'attention'", fix="match level = 'relations', or 'hidden'")
            return [(queries, keys) for queries, keys, _ in found]
        return [(part, part) for parts in found for part in parts]

    def _mixed(self, theirs: Tensor, there: Tensor | None, rows: Sequence[int]) -> Tensor:
        """What the teacher says, or nonsense: other tokens' vectors, or each list in another order."""
        import torch

        if self.shuffled is None:
            return theirs
        chance = np.random.default_rng([self.shuffled, *rows])
        if there is None:
            return theirs[torch.from_numpy(chance.permutation(len(theirs))).to(theirs.device)]
        keys = torch.from_numpy(chance.random(tuple(theirs.shape))).to(theirs.device)
        order = torch.where(there, keys, 2.0).argsort(1)  # what is no token stays behind
        return theirs.gather(1, order)


def open_inside(model: str, revision: str | None, bi_encoder: bool) -> Inside:
    """A model to learn from, in float32 on the CPU."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    if bi_encoder:
        opened = load_bi_encoder(model, revision)
        return Inside(opened[0].model.base_model, opened.tokenizer)
    about = {"revision": revision}
    body = load(lambda path: AutoModel.from_pretrained(path, dtype=torch.float32, **about), model)
    return Inside(body.base_model, load(lambda path: AutoTokenizer.from_pretrained(path, **about), model))


def inside_of(student: Any) -> Inside:
    """The model within a student.

    Raises:
        CardError: it has an encoder and a decoder, or none of transformers' models in it.
    """
    from transformers import PreTrainedModel

    body = next((each for each in student.network.modules() if isinstance(each, PreTrainedModel)), None)
    if body is None or body.config.is_encoder_decoder:
        fix = "take a student of kind 'bi_encoder' or 'cross_encoder', or match level = 'text'"
        raise CardError("this student's layers cannot be matched", where="level", fix=fix)
    return Inside(body.base_model, getattr(student, "tokenizer", None) or student.network.tokenizer)


def _batches(tokens: Tokens, budget: Budget, place: str) -> Iterator[dict[str, Tensor]]:
    for rows in plan_batches(tokens.lengths, budget.tokens, FEWEST):
        yield tokens.batch(rows, place)


def _states(body: Any, batch: dict[str, Tensor]) -> Sequence[Tensor]:
    """The embeddings and every layer's output, each ``[n, length, d]``."""
    found: Sequence[Tensor] = body(**batch, output_hidden_states=True).hidden_states
    return found


def _heights(layers: int, of: int) -> list[int]:
    """For the embeddings and each of ``layers`` layers the one at the same height of a model that has ``of``."""
    return [round(at * of / layers) for at in range(layers + 1)]


def _attended(body: Any, batch: dict[str, Tensor], layers: Sequence[int]) -> list[list[Tensor]]:
    """Queries, keys and values of some layers' self-attention, each ``[n, length, d]``."""
    kept: dict[tuple[int, str], Tensor] = {}
    stack = stack_of(body)
    matrices = [_projections(stack[at]) for at in layers]

    def keep(*name: Any) -> Callable[..., None]:
        return lambda _module, _inputs, output: kept.__setitem__(name, output.float())

    with _hooks([(each, keep(at, name)) for at, names in enumerate(matrices) for name, each in names.items()]):
        body(**batch)
    found = []
    for at, names in enumerate(matrices):
        parts = [kept[at, name] for name in names]
        found.append(list(parts[0].chunk(3, -1)) if len(parts) == 1 else parts)
    return found


def _projections(layer: Any) -> dict[str, Any]:
    """The matrices of a layer's self-attention by name: three, or one that holds all. Raises DataError: none known."""
    named = {name.rpartition(".")[2]: module for name, module in reversed(list(layer.named_modules()))}
    for names in PROJECTIONS:
        if set(names) <= set(named):
            return {name: named[name] for name in names}
    for name in FUSED:
        if name in named:
            return {name: named[name]}
    what = f"cannot find queries, keys and values in a {type(layer).__name__}"
    raise DataError(what, where="level", fix="match level = 'hidden', or 'text'")


@contextmanager
def _hooks(wanted: Sequence[tuple[Any, Callable[..., None]]]) -> Iterator[None]:
    handles = [module.register_forward_hook(hook) for module, hook in wanted]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _heads(body: Any) -> int:
    config = body.config
    return int(getattr(config, "num_attention_heads", 0) or getattr(config, "n_heads", 1))


def _alike(left: Tensor, right: Tensor, heads: int) -> Tensor:
    """``[n, heads, length, length]`` scaled dot products of all tokens of two ``[n, length, d]``."""
    import torch

    size = left.shape[-1] // heads
    one, other = (part.reshape(*part.shape[:2], heads, size).transpose(1, 2) for part in (left, right))
    with torch.autocast(left.device.type, enabled=False):
        found: Tensor = one @ other.transpose(-1, -2) / size**0.5
    return found


def _wide(part: Tensor, width: int) -> Tensor:
    from torch.nn.functional import pad

    return pad(part, (0, width - part.shape[1]))
