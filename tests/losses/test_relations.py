"""What the losses must say of each other, and of the hard quantities that they make smooth."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rerankdistill.contracts import Scores
from rerankdistill.kinds import open_kind

SHAPES = {"b": st.integers(1, 4), "m": st.integers(2, 7), "seed": st.integers(0, 10_000)}
quick = settings(max_examples=15, deadline=None)


def draw(b: int, m: int, seed: int) -> Scores:
    chance = torch.Generator().manual_seed(seed)
    student, teacher = (3 * torch.randn(b, m, generator=chance, dtype=torch.float64) for _ in range(2))
    label = torch.randint(0, 4, (b, m), generator=chance).double()
    return Scores(student.requires_grad_(), teacher=teacher, positive=teacher.argmax(1), label=label)


def mean(kind: str, scores: Scores, **options):
    total, weight = open_kind("losses", kind)(**options)(scores)
    return total / weight


def slope(value: torch.Tensor, scores: Scores) -> torch.Tensor:
    (found,) = torch.autograd.grad(value, scores.student)
    return found


def hard_ranks(values: torch.Tensor) -> torch.Tensor:
    return (values[:, None, :] > values[:, :, None]).sum(2).double() + 1


@given(**SHAPES, tau_s=st.floats(0.1, 5), tau_t=st.floats(0.1, 5))
@quick
def test_listnet_is_kl_and_the_teachers_entropy_with_the_same_gradient(b, m, seed, tau_s, tau_t):
    scores, taus = draw(b, m, seed), {"tau_student": tau_s, "tau_teacher": tau_t}
    logs = torch.log_softmax(scores.teacher / tau_t, 1)
    entropy = -(logs.exp() * logs).sum(1).mean()
    listnet, kl = mean("listnet", scores, **taus), mean("kl_div", scores, **taus)
    assert torch.allclose(listnet - kl, entropy, atol=1e-10)
    assert torch.allclose(slope(listnet, scores), slope(kl, scores), atol=1e-12)


@given(**SHAPES)
@quick
def test_a_skew_of_next_to_nothing_and_the_whole_way_to_the_teacher_are_kl(b, m, seed):
    scores = draw(b, m, seed)
    kl = mean("kl_div", scores)
    assert torch.allclose(mean("divergence", scores, form="skew", skew=1e-12), kl, rtol=1e-6)
    assert torch.allclose(mean("taid", scores, share=1.0), kl, atol=1e-10)


@given(**SHAPES)
@quick
def test_reverse_is_kl_with_the_two_exchanged(b, m, seed):
    scores = draw(b, m, seed)
    turned = Scores(scores.teacher, teacher=scores.student.detach())
    reverse = mean("divergence", scores, form="reverse", tau_student=0.7, tau_teacher=2, multiplier=3)
    assert torch.allclose(reverse, mean("kl_div", turned, tau_student=2, tau_teacher=0.7, multiplier=3), atol=1e-10)
    assert torch.allclose(mean("divergence", scores, form="js"), mean("divergence", turned, form="js"), atol=1e-10)


def test_jensen_shannon_never_exceeds_ln_2_however_far_apart_the_two_are(make, mean_of):
    scores = make([[800.0, -800.0]], [[-800.0, 800.0]])
    assert mean_of(open_kind("losses", "divergence")(), scores).item() == pytest.approx(math.log(2))


def test_reverse_kl_leaves_a_second_mode_alone_where_kl_pays_for_it(make):
    """The teacher likes two documents; a student on one of them costs the forward divergence much more."""
    scores = make([[10.0, 0.0, -10.0]], [[5.0, 5.0, -10.0]])
    assert mean("kl_div", scores) > 4 * mean("divergence", scores, form="reverse")


@given(**SHAPES, tau_s=st.floats(0.1, 5), tau_t=st.floats(0.1, 5))
@quick
def test_the_target_on_the_way_has_no_gradient(b, m, seed, tau_s, tau_t):
    scores = draw(b, m, seed)
    own = scores.student.detach() / tau_s
    middle = torch.softmax(0.7 * own + 0.3 * scores.teacher / tau_t, 1)
    found = slope(mean("taid", scores, share=0.3, tau_student=tau_s, tau_teacher=tau_t), scores)
    assert torch.allclose(found, (torch.softmax(own, 1) - middle) / (tau_s * b), atol=1e-10)


@given(**SHAPES)
@quick
def test_the_first_pick_of_list_mle_is_the_contrast_of_the_teachers_first(b, m, seed):
    scores = draw(b, m, seed)
    contrast = mean("localized_contrastive", Scores(scores.student, positive=scores.positive))
    assert torch.allclose(mean("list_mle", scores, top_k=1), contrast, atol=1e-10)


@given(**SHAPES)
@quick
def test_picking_with_a_teacher_that_is_sure_is_the_contrast_of_its_document(b, m, seed):
    scores = draw(b, m, seed)
    contrast = mean("localized_contrastive", Scores(scores.student, positive=scores.positive))
    scores.teacher = torch.where(torch.arange(m) == scores.positive[:, None], 0.0, -1e4).double()
    assert torch.allclose(mean("plackett_luce", scores), contrast, atol=1e-10)


@given(**SHAPES)
@quick
def test_picking_with_an_undecided_teacher_is_list_mle_over_the_length(b, m, seed):
    scores = draw(b, m, seed)
    flat = mean("plackett_luce", scores, tau_teacher=1e4)
    assert torch.allclose(flat, mean("list_mle", scores) / m, rtol=1e-2)


@given(**SHAPES)
@quick
def test_list_mle_sorts_the_documents_itself(b, m, seed):
    """sentence-transformers takes the order that they come in, unless told not to."""
    scores = draw(b, m, seed)
    columns = scores.teacher.argsort(1, descending=True)
    picked = scores.student.gather(1, columns)
    expected = sum(picked[:, k:].logsumexp(1) - picked[:, k] for k in range(m)).mean()
    assert torch.allclose(mean("list_mle", scores), expected, atol=1e-10)


@pytest.mark.parametrize(
    ("kind", "name", "options"),
    [
        ("ranknet", "sigma", {}),
        ("ranknet", "sigma", {"targets": "soft"}),
        ("lambda_loss", "sigma", {}),
        ("adr_mse", "alpha", {}),
        ("approx_rank", "alpha", {}),
    ],
)
@given(**SHAPES, steep=st.floats(0.1, 30))
@quick
def test_steepness_multiplies_the_students_scores(kind, name, options, b, m, seed, steep):
    """Elsewhere a "temperature" multiplies in one loss and divides in the next."""
    scores = draw(b, m, seed)
    steeper = Scores(steep * scores.student, teacher=scores.teacher)
    assert torch.allclose(mean(kind, scores, **{name: steep}, **options), mean(kind, steeper, **options), rtol=1e-9)


@given(**SHAPES)
@quick
def test_a_steep_adr_mse_is_the_squared_difference_of_hard_ranks(b, m, seed):
    scores = draw(b, m, seed)
    scores.student = (1e3 * scores.student.detach()).requires_grad_()
    wanted, given_ = hard_ranks(scores.teacher), hard_ranks(scores.student.detach())
    errors = (wanted - given_).square()
    assert mean("adr_mse", scores, alpha=1e4, discount="none").item() == pytest.approx(errors.mean().item(), abs=1e-3)
    expected = (errors / torch.log2(1 + wanted)).mean().item()
    assert mean("adr_mse", scores, alpha=1e4).item() == pytest.approx(expected, abs=1e-3)


@given(**SHAPES)
@quick
def test_a_steep_approximation_is_the_measure_itself(b, m, seed):
    scores = draw(b, m, seed)
    scores.label[:, 0] = 3  # something to find in every list
    scores.student = (1e3 * scores.student.detach()).requires_grad_()
    ranks, gains = hard_ranks(scores.student.detach()), torch.exp2(scores.label) - 1
    ideal = (gains.sort(1, descending=True).values / torch.log2(torch.arange(m).double() + 2)).sum(1)
    ndcg = ((gains / torch.log2(1 + ranks)).sum(1) / ideal).mean().item()
    options = {"alpha": 1e4, "grades": "label"}
    assert mean("approx_rank", scores, **options).item() == pytest.approx(1 - ndcg, abs=1e-3)
    reciprocal = (scores.label.clamp(max=1) / ranks).max(1).values.mean().item()
    assert mean("approx_rank", scores, measure="mrr", **options).item() == pytest.approx(1 - reciprocal, abs=1e-3)


@given(**SHAPES)
@quick
def test_the_weights_of_lambda_loss_are_what_ndcg_would_change(b, m, seed):
    """Every pair swapped in the student's list, and nDCG taken anew."""
    scores = draw(1, m, seed)
    student, gains = scores.student[0].detach(), torch.exp2(scores.label[0]) - 1
    ideal = (gains.sort(descending=True).values / torch.log2(torch.arange(m).double() + 2)).sum()
    ranks = hard_ranks(student[None])[0]
    total = count = 0
    for i in range(m):
        for j in range(m):
            if scores.label[0, i] > scores.label[0, j]:
                swapped = ranks.clone()
                swapped[[i, j]] = ranks[[j, i]]
                change = (gains * (1 / torch.log2(1 + swapped) - 1 / torch.log2(1 + ranks))).sum().abs() / ideal
                total, count = total + change * torch.log1p(torch.exp(student[j] - student[i])), count + 1
    loss = open_kind("losses", "lambda_loss")(scheme="lambdarank", grades="label", reduction="mean_pairs")
    found, weight = loss(scores)
    assert weight == count
    assert found.item() == pytest.approx(float(total), rel=1e-9, abs=1e-12)


@given(**SHAPES, stretch=st.floats(0.1, 10), shift=st.floats(-50, 50))
@quick
def test_pearson_minds_neither_the_teachers_unit_nor_the_students(b, m, seed, stretch, shift):
    scores = draw(b, m, seed)
    other = Scores(scores.student / stretch - shift, teacher=stretch * scores.teacher + shift)
    assert torch.allclose(mean("pearson", other), mean("pearson", scores), atol=1e-9)


@given(**SHAPES)
@quick
def test_pointwise_losses_pull_every_score_to_its_own_target(b, m, seed):
    scores = draw(b, m, seed)
    pull = torch.sigmoid(scores.student) - torch.sigmoid(scores.teacher)
    assert torch.allclose(slope(mean("pointwise_bce", scores), scores), pull / (b * m), atol=1e-12)
    pull = 2 * (scores.student - scores.teacher)
    assert torch.allclose(slope(mean("pointwise_mse", scores), scores), pull / (b * m), atol=1e-12)


def test_a_sure_student_is_still_pulled_by_what_is_left_to_learn(make, gradient_of):
    """torch's softplus is a straight line above 20, where 2e-9 is still missing."""
    scores = make([[22.0, 0.0]], label=[[1.0, 1.0]])
    slope = gradient_of(open_kind("losses", "pointwise_bce")(target="label"), scores)
    assert slope[0, 0].item() == pytest.approx(-math.exp(-22), rel=1e-4)


@given(**SHAPES)
@quick
def test_bixse_over_own_documents_is_pointwise_bce_of_a_logit(b, m, seed):
    scores = draw(b, m, seed)
    logits = Scores(10 * scores.student - 5, label=scores.label)
    pointwise = mean("pointwise_bce", logits, target="label", highest=3)
    assert torch.allclose(mean("bixse", scores, highest=3, reduction="mean"), pointwise, rtol=1e-12)
    assert torch.allclose(mean("bixse", scores, highest=3), m * pointwise, rtol=1e-12)
