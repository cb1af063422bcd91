"""Batches to try losses on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from rerankdistill.contracts import Layers, Logits, Preferences, Scores, Vectors
from rerankdistill.kinds import names, open_kind

PLAIN = ("teacher", "valid", "scored", "own", "label", "positive", "masked")
"""Fields with a row for each query."""


def batch(
    student: Any, teacher: Any = None, positive: Any = None, dtype: torch.dtype = torch.float64, **more: Any
) -> Scores:
    """A batch from nested lists or tensors; ``student`` becomes a leaf with gradient."""

    def tensor(values: Any) -> torch.Tensor:
        if isinstance(values, torch.Tensor):
            return values if values.dtype == torch.bool else values.detach().to(dtype)
        return torch.tensor(values, dtype=torch.float64).to(dtype)

    leaf = tensor(student).clone().requires_grad_()
    fields = {name: None if values is None else tensor(values) for name, values in more.items()}
    where = None if positive is None else torch.as_tensor(positive, dtype=torch.long)
    return Scores(leaf, teacher=None if teacher is None else tensor(teacher), positive=where, **fields)


def random_batch(dtype: torch.dtype = torch.float64, seed: int = 0, b: int = 3, m: int = 6) -> Scores:
    """Everything that any loss can ask for, without ties."""
    chance = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=chance, dtype=torch.float64)

    def leaf(*shape: int) -> torch.Tensor:
        return draw(*shape).to(dtype).requires_grad_()

    made = batch(draw(b, m), draw(b, m), [0] * b, dtype, label=torch.eye(1, m).repeat(b, 1))
    made.vectors = Vectors(leaf(4, 5), draw(4, 5).to(dtype), draw(3, 5).to(dtype))
    one, other = torch.triu_indices(m, m, 1)
    row = torch.arange(b).repeat_interleave(len(one))
    said = torch.rand(len(row), generator=chance, dtype=torch.float64).to(dtype)
    made.preferences = Preferences(row, one.repeat(b), other.repeat(b), said)
    made.layers = Layers(leaf(2, b, m), draw(2, b, m).to(dtype))
    made.logits = Logits(leaf(b, m, 2), draw(b, m, 2).to(dtype))
    unit = torch.nn.functional.normalize(draw(m, 5))
    made.docs = (unit @ unit.T).to(dtype).requires_grad_()
    return made


def rows(scores: Scores, part: slice) -> Scores:
    """Some of a batch's queries."""
    names = [name for name in PLAIN if getattr(scores, name) is not None]
    made = Scores(scores.student[part], **{name: getattr(scores, name)[part] for name in names}, docs=scores.docs)
    if scores.layers is not None:
        made.layers = Layers(scores.layers.student[:, part], scores.layers.teacher[:, part])
    if scores.logits is not None:
        made.logits = Logits(scores.logits.student[part], scores.logits.teacher[part])
    if scores.preferences is not None:
        theirs, chosen = scores.preferences, range(len(scores.student))[part]
        kept = (theirs.row >= chosen.start) & (theirs.row < chosen.stop)
        parts = (theirs.row - chosen.start, theirs.first, theirs.second, theirs.probability)
        made.preferences = Preferences(*(each[kept] for each in parts))
    return made


def wider(scores: Scores, fill: float, columns: int = 2) -> Scores:
    """The same batch with padded columns that hold ``fill``; every field that has columns is a new leaf."""

    def pad(values: torch.Tensor, fill: float, axis: int = -1) -> torch.Tensor:
        shape = [*values.shape]
        shape[axis] = columns
        return torch.cat([values.detach(), torch.full(shape, fill, dtype=values.dtype)], axis)

    made = Scores(
        pad(scores.student, fill).requires_grad_(),
        teacher=pad(scores.teacher, fill),
        label=pad(scores.label, 3.0),
        positive=scores.positive,
        valid=pad(torch.ones_like(scores.student), 0.0).bool(),
    )
    b, m = scores.student.shape
    made.layers = Layers(pad(scores.layers.student, fill).requires_grad_(), pad(scores.layers.teacher, fill))
    made.logits = Logits(pad(scores.logits.student, fill, 1).requires_grad_(), pad(scores.logits.teacher, fill, 1))
    made.docs = pad(pad(scores.docs, fill), fill, 0).requires_grad_()
    theirs, odd = scores.preferences, torch.arange(b)
    row, first = torch.cat([theirs.row, odd]), torch.cat([theirs.first, odd * 0])
    second, said = torch.cat([theirs.second, odd * 0 + m]), torch.cat([theirs.probability, torch.full((b,), 0.9)])
    made.preferences = Preferences(row, first, second, said.to(theirs.probability.dtype))
    return made


def learner(needs: frozenset[str], scores: Scores) -> torch.Tensor:
    """What of a batch a loss that needs this has its gradient in."""
    for name in ("vectors", "layers", "logits"):
        if name in needs:
            return getattr(scores, name).student
    return scores.student


VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("kl_div", {"alpha": 0.3}),
    *(("divergence", {"form": form}) for form in ("reverse", "symmetric", "skew")),
    *(("list_mle", {"positions": positions}) for positions in ("mean", "weighted")),
    ("list_mle", {"top_k": 2}),
    ("plackett_luce", {"label_first": True}),
    ("ranknet", {"targets": "soft"}),
    ("ranknet", {"weights": "ranks"}),
    ("margin_mse", {"margin": 1.0}),
    *(("lambda_loss", {"scheme": scheme}) for scheme in ("lambdarank", "ndcg2")),
    ("lambda_loss", {"grades": "label", "k": 3}),
    ("adr_mse", {"ties": "column", "discount": "reciprocal"}),
    *(("approx_rank", {"measure": measure, "grades": "label"}) for measure in ("ndcg", "mrr")),
    ("approx_rank", {"measure": "mrr"}),
    ("pointwise_bce", {"target": "label"}),
    ("pointwise_bce", {"scale": 20.0, "bias": -10.0}),
    ("bixse", {"reduction": "mean"}),
    ("infonce", {"symmetric": True}),
    ("pairwise_preference", {"form": "bce"}),
    ("two_logit_mse", {"centre": False}),
    *(("layer_alignment", {"weights": weights, "over": "own"}) for weights in ("query", "even")),
    ("adaptive_margin", {"detach_target": False}),
    ("soft_nearest_neighbour", {"over": "own"}),
    *(("summed_positives", {"pool": pool, "over": over}) for pool, over in (("mean", "batch"), ("sum", "own"))),
    ("relative_similarity", {"margin": 0.5, "dims": (4, 2)}),
    ("similarity_mse", {"dims": (4, 2)}),
]
"""Options that make another loss of a loss: they keep the same contract."""


OF_A_BATCH = {"layer_alignment"}
"""Losses that take some figure of the whole batch: what micro-batches make of it is in test_signals.py."""


def variant(name: str, **given: Any) -> Any:
    """The class of a loss as if ``given`` were its defaults."""
    kind = open_kind("losses", name)

    def start(self: Any, **options: Any) -> None:
        kind.__init__(self, **{**given, **options})

    return type("Kind", (kind,), {"__init__": start, "__module__": kind.__module__})


def spelt(name: str, options: dict[str, Any]) -> str:
    return "-".join([name, *(f"{key}={value}" for key, value in options.items())])


LOSSES = {name: open_kind("losses", name) for name in names("losses")}
LOSSES |= {spelt(name, options): variant(name, **options) for name, options in VARIANTS}


def mean(loss: Any, scores: Scores) -> torch.Tensor:
    total, weight = loss(scores)
    return total / weight


def gradient(loss: Any, scores: Scores) -> torch.Tensor:
    """d(sum) by what the loss learns in."""
    total, _ = loss(scores)
    (found,) = torch.autograd.grad(total, learner(loss.needs, scores))
    return found


@pytest.fixture
def make() -> Callable[..., Scores]:
    return batch


@pytest.fixture
def randomly() -> Callable[..., Scores]:
    return random_batch


@pytest.fixture
def rows_of() -> Callable[..., Scores]:
    return rows


@pytest.fixture
def widened() -> Callable[..., Scores]:
    return wider


@pytest.fixture
def learner_of() -> Callable[..., torch.Tensor]:
    return learner


@pytest.fixture
def mean_of() -> Callable[..., torch.Tensor]:
    return mean


@pytest.fixture
def gradient_of() -> Callable[..., torch.Tensor]:
    return gradient


@pytest.fixture(params=LOSSES)
def every(request: pytest.FixtureRequest) -> Any:
    """The class of each loss of the room, and of its variants."""
    return LOSSES[request.param]


@pytest.fixture(params=[name for name, kind in LOSSES.items() if "vectors" not in kind.needs])
def every_on_lists(request: pytest.FixtureRequest) -> Any:
    """The class of each loss that reads scores (vectors have no mask and no queries)."""
    return LOSSES[request.param]


@pytest.fixture(params=[n for n, kind in LOSSES.items() if "vectors" not in kind.needs and n not in OF_A_BATCH])
def every_by_query(request: pytest.FixtureRequest) -> Any:
    """The class of each loss that is a sum over queries, each of which could be alone."""
    return LOSSES[request.param]
