"""What must hold for any scores."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rerankdistill.contracts import Scores
from rerankdistill.kinds import open_kind
from rerankdistill.types import Scale

LISTS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in ("kl_div", "margin_mse", "ranknet", "infonce", "localized_contrastive")),
    *(("divergence", {"form": form}) for form in ("js", "reverse", "symmetric", "skew")),
    *((name, {}) for name in ("listnet", "taid", "plackett_luce", "adr_mse", "pearson")),
    ("plackett_luce", {"label_first": True}),
    *(("list_mle", {"positions": positions}) for positions in ("sum", "mean", "weighted")),
    ("ranknet", {"targets": "soft"}),
    ("ranknet", {"weights": "ranks"}),
    ("margin_mse", {"margin": 1}),
    *(("lambda_loss", {"scheme": scheme}) for scheme in ("lambdarank", "ndcg2", "ndcg2pp")),
    ("lambda_loss", {"grades": "label", "k": 2}),
    *(("approx_rank", {"measure": measure}) for measure in ("ndcg", "mrr")),
    ("soft_nearest_neighbour", {"tau": 1}),
    ("summed_positives", {"tau": 1, "pool": "mean"}),
]
POINTS: list[tuple[str, dict[str, Any]]] = [
    ("pointwise_bce", {}),
    ("pointwise_bce", {"target": "label"}),
    ("pointwise_mse", {}),
    ("bixse", {}),
]
ORDERS = [
    *((name, {}) for name in ("ranknet", "list_mle", "adr_mse", "lambda_loss", "approx_rank")),
    ("ranknet", {"weights": "ranks"}),
    ("margin_mse", {"margin": 1, "pairs": "all"}),
]
AT_REST = [
    *((name, {}) for name in ("kl_div", "margin_mse", "taid", "pearson")),
    *(("divergence", {"form": form}) for form in ("js", "reverse", "symmetric", "skew")),
]
SHAPES = {"b": st.integers(1, 4), "m": st.integers(2, 7), "seed": st.integers(0, 10_000)}
quick = settings(max_examples=15, deadline=None)


def draw(b: int, m: int, seed: int) -> Scores:
    chance = torch.Generator().manual_seed(seed)
    student, teacher = (3 * torch.randn(b, m, generator=chance, dtype=torch.float64) for _ in range(2))
    positive = torch.randint(0, m, (b,), generator=chance)
    label = torch.nn.functional.one_hot(positive, m).double()
    return Scores(student.requires_grad_(), teacher=teacher, positive=positive, label=label)


def mean(loss, scores):
    total, weight = loss(scores)
    return total / weight


@pytest.mark.parametrize(("kind", "options"), LISTS)
@given(**SHAPES, shift=st.floats(-50, 50))
@quick
def test_adding_a_constant_to_a_querys_scores_changes_nothing(kind, options, b, m, seed, shift):
    loss, scores = open_kind("losses", kind)(**options), draw(b, m, seed)
    moved = Scores(scores.student + shift, teacher=scores.teacher, positive=scores.positive, label=scores.label)
    assert torch.allclose(mean(loss, moved), mean(loss, scores), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(("kind", "options"), POINTS)
def test_a_loss_on_single_documents_does_mind_a_constant(kind, options):
    loss, scores = open_kind("losses", kind)(**options), draw(2, 4, 0)
    moved = Scores(scores.student + 1, teacher=scores.teacher, label=scores.label)
    assert (mean(loss, moved) - mean(loss, scores)).abs() > 1e-3


@pytest.mark.parametrize(("kind", "options"), LISTS + POINTS)
@given(**SHAPES)
@quick
def test_the_order_of_documents_does_not_matter(kind, options, b, m, seed):
    loss, scores = open_kind("losses", kind)(**options), draw(b, m, seed)
    order = torch.randperm(m, generator=torch.Generator().manual_seed(seed))
    turned = Scores(
        scores.student.detach()[:, order].requires_grad_(),
        teacher=scores.teacher[:, order],
        label=scores.label[:, order],
        positive=order.argsort()[scores.positive],
    )
    first, second = mean(loss, scores), mean(loss, turned)
    assert torch.allclose(first, second, rtol=1e-10)
    (g,), (h,) = torch.autograd.grad(first, scores.student), torch.autograd.grad(second, turned.student)
    assert torch.allclose(g[:, order], h, atol=1e-12)


@pytest.mark.parametrize(("kind", "options"), ORDERS)
@given(**SHAPES, stretch=st.floats(0.1, 10))
@quick
def test_a_loss_that_takes_ranks_sees_the_teachers_order_alone(kind, options, b, m, seed, stretch):
    loss, scores = open_kind("losses", kind)(**options), draw(b, m, seed)
    assert Scale.RANK in loss.eats
    other = Scores(scores.student, teacher=torch.exp(stretch * scores.teacher), positive=scores.positive)
    assert torch.allclose(mean(loss, other), mean(loss, scores), rtol=1e-12)


@pytest.mark.parametrize(("kind", "options"), [*AT_REST, ("listnet", {}), ("plackett_luce", {}), ("pointwise_mse", {})])
def test_a_loss_that_takes_no_ranks_sees_more_than_the_teachers_order(kind, options):
    loss, scores = open_kind("losses", kind)(**options), draw(2, 4, 0)
    assert Scale.RANK not in loss.eats
    other = Scores(scores.student, teacher=torch.exp(scores.teacher), positive=scores.positive)
    assert (mean(loss, other) - mean(loss, scores)).abs() > 1e-3


@pytest.mark.parametrize(("kind", "options"), AT_REST)
@given(**SHAPES, shift=st.floats(-5, 5))
@quick
def test_a_student_that_equals_its_teacher_up_to_a_constant_has_nothing_to_learn(kind, options, b, m, seed, shift):
    scores = draw(b, m, seed)
    scores.student = (scores.teacher + shift).requires_grad_()
    value = mean(open_kind("losses", kind)(**options), scores)
    (slope,) = torch.autograd.grad(value, scores.student)
    assert abs(value.item()) < 1e-12
    assert slope.abs().max() < 1e-12


@given(**SHAPES, tau_s=st.floats(0.05, 5), tau_t=st.floats(0.05, 5))
@quick
def test_the_gradient_of_kl_is_the_difference_of_the_distributions(b, m, seed, tau_s, tau_t):
    scores = draw(b, m, seed)
    value = mean(open_kind("losses", "kl_div")(tau_student=tau_s, tau_teacher=tau_t), scores)
    (slope,) = torch.autograd.grad(value, scores.student)
    expected = (torch.softmax(scores.student / tau_s, 1) - torch.softmax(scores.teacher / tau_t, 1)) / (tau_s * b)
    assert torch.allclose(slope, expected, atol=1e-10)


@given(**SHAPES, alpha=st.floats(0.01, 1))
@quick
def test_the_gradient_of_kl_follows_the_mixed_target(b, m, seed, alpha):
    scores = draw(b, m, seed)
    value = mean(open_kind("losses", "kl_div")(alpha=alpha), scores)
    (slope,) = torch.autograd.grad(value, scores.student)
    target = (1 - alpha) * torch.softmax(scores.teacher, 1) + alpha * scores.label
    assert torch.allclose(slope, (torch.softmax(scores.student, 1) - target) / b, atol=1e-10)
    assert value > -1e-12


@given(**SHAPES, stretch=st.floats(0.01, 100), shift=st.floats(-50, 50))
@quick
def test_a_fitted_margin_mse_does_not_mind_the_teachers_unit(b, m, seed, stretch, shift):
    loss, scores = open_kind("losses", "margin_mse")(fit=True), draw(b, m, seed)
    other = Scores(scores.student, teacher=stretch * scores.teacher + shift, positive=scores.positive)
    assert torch.allclose(mean(loss, other), mean(loss, scores), rtol=1e-6)


@given(**SHAPES)
@quick
def test_margin_mse_over_all_n2_pairs_is_smaller_by_the_diagonal(b, m, seed):
    scores = draw(b, m, seed)
    every, pairs = (mean(open_kind("losses", "margin_mse")(pairs=p), scores) for p in ("all_n2", "all"))
    assert torch.allclose(every, pairs * (m - 1) / m)
