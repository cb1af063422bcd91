"""Losses on relations among texts: what is compared, at what cost, and what must not matter."""

from __future__ import annotations

import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import normalize

from rerankdistill.contracts import Scores, Vectors
from rerankdistill.errors import CardError, DataError, RerankDistillWarning
from rerankdistill.kinds import open_kind

SHAPES = {"t": st.integers(2, 9), "seed": st.integers(0, 10_000)}
quick = settings(max_examples=25, deadline=None)


def draw(t: int, seed: int, d: int = 4, teacher: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    chance = torch.Generator().manual_seed(seed)
    one, other = (torch.randn(t, size, generator=chance, dtype=torch.float64) for size in (d, teacher))
    return one.requires_grad_(), other


def run(kind: str, student, teacher, queue=None, **options) -> tuple[torch.Tensor, torch.Tensor]:
    scores = Scores(torch.empty(0, 0), vectors=Vectors(student, teacher, queue))
    return open_kind("losses", kind)(**options)(scores)


def every_comparison(student, teacher, margin: float) -> tuple[torch.Tensor, int]:
    """All pairs of pairs, one after the other."""
    one, other = torch.triu_indices(len(student), len(student), 1)
    mine, theirs = ((normalize(part) @ normalize(part).T)[one, other] for part in (student, teacher))
    total, count = 0 * student.sum(), 0
    for a in range(len(mine)):
        for b in range(len(mine)):
            if theirs[a] > theirs[b]:
                total, count = total + (mine[b] - mine[a] + margin).clamp(min=0), count + 1
    return total, count


@given(**SHAPES, margin=st.sampled_from([0.0, 0.015, 0.4, 3.0]), ties=st.integers(0, 3))
@quick
def test_sorting_gives_the_value_and_the_gradient_of_every_comparison(t, seed, margin, ties):
    student, teacher = draw(t, seed)
    if ties:  # texts on few directions: many pairs exactly as alike
        teacher = torch.eye(6, dtype=torch.float64)[torch.arange(t) % (ties + 1)]
    total, weight = run("relative_similarity", student, teacher, margin=margin)
    expected, count = every_comparison(student, teacher, margin)
    assert weight == count
    assert torch.allclose(total, expected, rtol=1e-10, atol=1e-12)
    (found,), (wanted,) = (torch.autograd.grad(each, student) for each in (total, expected))
    assert torch.allclose(found, wanted, atol=1e-10)


def test_three_billion_comparisons_fit_into_memory_and_patience():
    student, teacher = draw(400, 0, d=32, teacher=32)
    total, weight = run("relative_similarity", student, teacher)
    pairs = 400 * 399 / 2
    assert weight.item() == pytest.approx(pairs * (pairs - 1) / 2)
    assert torch.isfinite(torch.autograd.grad(total / weight, student)[0]).all()


@given(**SHAPES)
@quick
def test_prefixes_are_averaged_and_the_teacher_stays_whole(t, seed):
    student, teacher = draw(t, seed)
    total, weight = run("relative_similarity", student, teacher, dims=(4, 2))
    parts = [run("relative_similarity", student[:, :size], teacher)[0] for size in (4, 2)]
    assert torch.allclose(total, sum(parts) / 2)
    assert weight == run("relative_similarity", student, teacher)[1]


@given(t=st.integers(3, 9), seed=st.integers(0, 10_000))
@quick
def test_a_teachers_order_of_pairs_is_all_that_relative_similarity_sees(t, seed):
    student, _ = draw(t, seed)
    teacher = student.detach()
    assert run("relative_similarity", student, 7 * teacher, margin=0.0)[0].item() == pytest.approx(0, abs=1e-12)
    opposed = run("relative_similarity", student, draw(t, seed + 1)[1], margin=0.0)[0]
    assert opposed >= 0


@pytest.mark.parametrize("t", [0, 1, 2])
def test_too_few_texts_to_compare_are_zero_with_zero_weight(t):
    for kind in ("relative_similarity", "rkd_distance") if t < 2 else ("relative_similarity",):
        student, teacher = draw(t, 0)
        total, weight = run(kind, student, teacher)
        total.backward()
        assert total.item() == weight.item() == 0
        assert not student.grad.any()


def test_prefixes_longer_than_the_students_vector_are_refused():
    with pytest.raises(CardError, match="dims reach 5"):
        run("relative_similarity", *draw(3, 0), dims=(5,))


# rkd_distance


@given(t=st.integers(2, 9), seed=st.integers(0, 10_000), stretch=st.floats(0.01, 100), shift=st.floats(-50, 50))
@quick
def test_distances_in_proportion_have_nothing_to_learn_wherever_and_however_large_they_are(t, seed, stretch, shift):
    _, teacher = draw(t, seed)
    turn, _ = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(seed)).double())
    student = (stretch * teacher @ turn + shift).requires_grad_()
    total, _ = run("rkd_distance", student, teacher)
    assert abs(total.item()) < 1e-9
    assert torch.autograd.grad(total, student)[0].abs().max() < 1e-4 / stretch


def test_texts_that_the_student_cannot_tell_apart_do_not_break_the_gradient():
    student, teacher = draw(5, 0)
    same = student.detach().clone()
    same[1] = same[0]
    for vectors in (same, torch.ones_like(same)):
        total, weight = run("rkd_distance", vectors.requires_grad_(), teacher)
        assert weight == 10
        assert torch.isfinite(torch.autograd.grad(total, vectors)[0]).all()
        vectors.requires_grad_(False)


# contrastive_kd


@given(t=st.integers(2, 9), seed=st.integers(0, 10_000))
@quick
def test_the_order_of_texts_and_the_length_of_vectors_do_not_matter(t, seed):
    student, teacher = draw(t, seed, teacher=4)
    queue = draw(3, seed + 1, d=4)[0].detach()
    turn = torch.randperm(t, generator=torch.Generator().manual_seed(seed))
    plain = run("contrastive_kd", student, teacher, queue)[0]
    assert torch.allclose(run("contrastive_kd", 3 * student[turn], teacher[turn] / 5, queue.flip(0))[0], plain)
    assert plain > run("contrastive_kd", student, teacher)[0], "more rivals"


def test_a_text_that_comes_twice_or_waits_in_the_queue_is_no_rival_of_itself():
    student, teacher = draw(4, 0, teacher=4)
    once = run("contrastive_kd", student, teacher)
    again = run("contrastive_kd", student, teacher, 2 * teacher[:1])
    rivals = normalize(student) @ normalize(teacher[:1]).T / 0.05
    logs = (normalize(student) @ normalize(teacher).T / 0.05).logsumexp(1)
    added = (torch.logaddexp(logs, rivals[:, 0]) - logs)[1:].sum()
    assert again[0].item() == pytest.approx((once[0] + added).item())


def test_a_text_alone_has_no_rival_and_teaches_nothing():
    with pytest.warns(RerankDistillWarning, match="one candidate"):
        total, weight = run("contrastive_kd", *draw(1, 0, teacher=4))
    assert total.item() == weight.item() == 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert run("contrastive_kd", *draw(1, 0, teacher=4), torch.ones(1, 4))[1] == 1


@pytest.mark.parametrize("queue", [torch.ones(2, 3), torch.ones(4), torch.full((2, 4), torch.nan)])
def test_a_queue_of_other_vectors_is_refused(queue):
    with pytest.raises(DataError, match=r"queue|not finite"):
        run("contrastive_kd", *draw(3, 0, teacher=4), queue)
