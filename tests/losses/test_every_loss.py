"""The contract that each loss of the room keeps."""

from __future__ import annotations

import pytest
import torch

from rerankdistill.contracts import Scores, Vectors
from rerankdistill.errors import CardError, DataError
from rerankdistill.types import Scale


def test_it_says_what_it_needs_and_eats(every):
    loss = every()
    fields = set(Scores.__dataclass_fields__)
    assert loss.needs
    assert loss.needs <= fields
    assert loss.eats <= set(Scale)
    assert bool(loss.eats) == ("teacher" in loss.needs)


def test_it_says_where_it_comes_from(every):
    import sys

    text = sys.modules[every.__module__].__doc__
    assert "By hand:" in text
    assert "math::" in text
    assert "20" in text.rsplit("By hand:", 1)[1], "the citation"


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_it_computes_in_float32_at_least(every, randomly, dtype):
    total, weight = every()(randomly(dtype))
    expected = torch.float64 if dtype == torch.float64 else torch.float32
    assert total.dtype == weight.dtype == expected
    assert total.shape == weight.shape == ()
    assert torch.isfinite(total)
    assert weight > 0
    assert total >= 0


def test_it_has_a_gradient_and_gives_the_teacher_none(every, randomly):
    scores = randomly()
    scores.teacher.requires_grad_()
    scores.vectors.teacher.requires_grad_()
    total, _ = every()(scores)
    total.backward()
    leaf = scores.vectors.student if "vectors" in every().needs else scores.student
    assert leaf.grad is not None
    assert leaf.grad.abs().max() > 0
    assert scores.teacher.grad is None
    assert scores.vectors.teacher.grad is None


def test_it_is_a_pure_function(every, randomly):
    loss, scores = every(), randomly()
    before = scores.student.detach().clone(), scores.teacher.clone(), scores.vectors.student.detach().clone()
    first, second = loss(scores), loss(scores)
    assert first[0].item() == second[0].item()
    assert first[1].item() == second[1].item()
    after = scores.student, scores.teacher, scores.vectors.student
    assert all(torch.equal(old, new.detach()) for old, new in zip(before, after, strict=True))


def test_a_misspelt_option_is_refused_and_what_was_meant_is_said(every):
    with pytest.raises(CardError, match="unknown field"):
        every(temprature=1.0)


def test_a_missing_field_is_refused(every):
    bare = Scores(torch.zeros(2, 2))
    with pytest.raises(DataError, match="the batch has no"):
        every()(bare)


def test_everything_masked_is_zero_with_zero_weight_and_no_nan(every_on_lists, randomly):
    scores = randomly()
    scores.student = torch.full_like(scores.student, torch.nan).requires_grad_()
    scores.valid = torch.zeros_like(scores.student, dtype=torch.bool)
    total, weight = every_on_lists()(scores)
    total.backward()
    assert total.item() == 0
    assert weight.item() == 0
    assert torch.equal(scores.student.grad, torch.zeros_like(scores.student))


@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (2, 0)])
def test_a_batch_without_queries_or_without_documents_is_zero_with_zero_weight(every_on_lists, shape):
    empty = torch.zeros(shape)
    scores = Scores(empty.clone().requires_grad_(), teacher=empty, label=empty, positive=torch.full(shape[:1], -1))
    total, weight = every_on_lists()(scores)
    total.backward()
    assert total.item() == weight.item() == 0


@pytest.mark.parametrize("garbage", [torch.nan, torch.inf, -torch.inf, 99.0])
def test_a_padded_cell_changes_nothing_and_gets_exactly_zero_gradient_whatever_it_holds(
    every_on_lists, randomly, garbage
):
    scores, loss = randomly(), every_on_lists()
    total, weight = loss(scores)
    (plain,) = torch.autograd.grad(total, scores.student)

    def pad(values: torch.Tensor, fill: float) -> torch.Tensor:
        return torch.cat([values.detach(), torch.full((len(values), 2), fill, dtype=values.dtype)], 1)

    padded = Scores(
        pad(scores.student, garbage).requires_grad_(),
        teacher=pad(scores.teacher, garbage),
        label=pad(scores.label, 3.0),
        positive=scores.positive,
        valid=pad(torch.ones_like(scores.student), 0.0).bool(),
    )
    wider, same_weight = loss(padded)
    (found,) = torch.autograd.grad(wider, padded.student)
    assert torch.allclose(wider, total, rtol=1e-12)
    assert same_weight == weight
    assert torch.allclose(found[:, :-2], plain, atol=1e-14)
    assert torch.equal(found[:, -2:], torch.zeros_like(found[:, -2:]))


def test_sums_and_weights_of_micro_batches_add_up(every_on_lists, randomly):
    scores, loss = randomly(b=4), every_on_lists()
    whole = loss(scores)

    def rows(part: slice) -> Scores:
        names = ("teacher", "label", "positive")
        return Scores(scores.student[part], **{name: getattr(scores, name)[part] for name in names})

    chunks = [loss(rows(slice(0, 1))), loss(rows(slice(1, 4)))]
    assert torch.allclose(sum(total for total, _ in chunks), whole[0])
    assert sum(weight for _, weight in chunks) == whole[1]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_scores_of_800_stay_finite(every, dtype, make):
    student = [[800.0, -750.0, 10.0, 0.0], [-600.0, 600.0, 599.0, -599.0]]
    teacher = [[-500.0, 400.0, 0.0, 30.0], [700.0, 0.0, -700.0, 1.0]]
    scores = make(student, teacher, [0, 1], dtype, label=torch.eye(2, 4))
    scores.vectors = Vectors(scores.student, scores.teacher)
    total, _ = every()(scores)
    total.backward()
    assert torch.isfinite(total)
    assert torch.isfinite(scores.student.grad).all()


def test_autocast_to_bfloat16_does_not_round_the_loss(every, randomly):
    scores = randomly(torch.float32)
    plain, _ = every()(scores)
    with torch.autocast("cpu", torch.bfloat16):
        cast, _ = every()(scores)
    assert cast.dtype == torch.float32
    assert cast.item() == plain.item()
