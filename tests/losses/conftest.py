"""Batches to try losses on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from rerankdistill.contracts import Scores, Vectors
from rerankdistill.kinds import names, open_kind


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

    made = batch(draw(b, m), draw(b, m), [0] * b, dtype, label=torch.eye(1, m).repeat(b, 1))
    leaf = draw(4, 5).to(dtype).requires_grad_()
    made.vectors = Vectors(leaf, draw(4, 5).to(dtype))
    return made


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
]
"""Options that make another loss of a loss: they keep the same contract."""


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
    """d(sum) by the student's scores."""
    total, _ = loss(scores)
    (found,) = torch.autograd.grad(total, scores.student)
    return found


@pytest.fixture
def make() -> Callable[..., Scores]:
    return batch


@pytest.fixture
def randomly() -> Callable[..., Scores]:
    return random_batch


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
