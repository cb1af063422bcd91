"""The contract that each loss of the room keeps."""

from __future__ import annotations

import pytest
import torch

from rerankdistill.contracts import Layers, Logits, Preferences, Scores, Vectors
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


def test_it_has_a_gradient_and_gives_the_teacher_none(every, randomly, learner_of):
    scores, loss = randomly(), every()
    said = scores.preferences.probability
    theirs = [scores.teacher, said, *(pair.teacher for pair in (scores.vectors, scores.layers, scores.logits))]
    for tensor in theirs:
        tensor.requires_grad_()
    total, _ = loss(scores)
    total.backward()
    leaf = learner_of(loss.needs, scores)
    assert leaf.grad is not None
    assert leaf.grad.abs().max() > 0
    assert all(tensor.grad is None for tensor in theirs)


def test_it_is_a_pure_function(every, randomly):
    def tensors(scores: Scores) -> list[torch.Tensor]:
        parts = [scores.vectors, scores.layers, scores.logits]
        found = [scores.student, scores.teacher, scores.docs, scores.preferences.probability]
        return [each.detach() for each in (*found, *(part.student for part in parts), *(p.teacher for p in parts))]

    loss, scores = every(), randomly()
    before = [each.clone() for each in tensors(scores)]
    first, second = loss(scores), loss(scores)
    assert first[0].item() == second[0].item()
    assert first[1].item() == second[1].item()
    assert all(torch.equal(old, new) for old, new in zip(before, tensors(scores), strict=True))


def test_a_misspelt_option_is_refused_and_what_was_meant_is_said(every):
    with pytest.raises(CardError, match="unknown field"):
        every(temprature=1.0)


def test_a_missing_field_is_refused(every):
    bare = Scores(torch.zeros(2, 2))
    with pytest.raises(DataError, match="the batch has no"):
        every()(bare)


def test_everything_masked_is_zero_with_zero_weight_and_no_nan(every_on_lists, randomly, learner_of):
    scores, loss = randomly(), every_on_lists()
    scores.student = torch.full_like(scores.student, torch.nan).requires_grad_()
    for pair in (scores.layers, scores.logits):
        pair.student = torch.full_like(pair.student, torch.nan).requires_grad_()
    scores.docs = torch.full_like(scores.docs, torch.nan).requires_grad_()
    scores.valid = torch.zeros_like(scores.student, dtype=torch.bool)
    total, weight = loss(scores)
    total.backward()
    assert total.item() == 0
    assert weight.item() == 0
    leaf = learner_of(loss.needs, scores)
    assert torch.equal(leaf.grad, torch.zeros_like(leaf))


@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (2, 0)])
def test_a_batch_without_queries_or_without_documents_is_zero_with_zero_weight(every_on_lists, shape):
    empty, none = torch.zeros(shape), torch.empty(0, dtype=torch.long)
    scores = Scores(empty.clone().requires_grad_(), teacher=empty, label=empty, positive=torch.full(shape[:1], -1))
    scores.layers = Layers(torch.zeros(2, *shape).requires_grad_(), torch.zeros(2, *shape))
    scores.logits = Logits(torch.zeros(*shape, 2).requires_grad_(), torch.zeros(*shape, 2))
    scores.docs, scores.preferences = torch.zeros(shape[1], shape[1]), Preferences(none, none, none, torch.empty(0))
    total, weight = every_on_lists()(scores)
    total.backward()
    assert total.item() == weight.item() == 0


@pytest.mark.parametrize("garbage", [torch.nan, torch.inf, -torch.inf, 99.0])
def test_a_padded_cell_changes_nothing_and_gets_exactly_zero_gradient_whatever_it_holds(
    every_on_lists, randomly, widened, learner_of, garbage
):
    scores, loss = randomly(), every_on_lists()
    total, weight = loss(scores)
    (plain,) = torch.autograd.grad(total, learner_of(loss.needs, scores))
    padded = widened(scores, garbage)
    wider, same_weight = loss(padded)
    wider.backward()
    found = learner_of(loss.needs, padded).grad
    assert torch.allclose(wider, total, rtol=1e-12)
    assert same_weight == weight
    axis = 1 if "logits" in loss.needs else -1
    kept, extra = found.split([plain.shape[axis], 2], axis)
    assert torch.allclose(kept, plain, atol=1e-14)
    assert torch.equal(extra, torch.zeros_like(extra))
    if padded.docs.grad is not None:
        assert not padded.docs.grad[-2:].any()
        assert not padded.docs.grad[:, -2:].any()


def test_sums_and_weights_of_micro_batches_add_up(every_by_query, randomly, rows_of):
    scores, loss = randomly(b=4), every_by_query()
    whole = loss(scores)
    chunks = [loss(rows_of(scores, slice(0, 1))), loss(rows_of(scores, slice(1, 4)))]
    assert torch.allclose(sum(total for total, _ in chunks), whole[0])
    assert sum(weight for _, weight in chunks) == whole[1]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_scores_of_800_stay_finite(every, dtype, make, learner_of):
    loss, student = every(), torch.tensor([[800.0, -750.0, 10.0, 0.0], [-600.0, 600.0, 599.0, -599.0]])
    teacher = torch.tensor([[-500.0, 400.0, 0.0, 30.0], [700.0, 0.0, -700.0, 1.0]])
    scores = make(student, teacher, [0, 1], dtype, label=torch.eye(2, 4))

    def leaf(*rows: torch.Tensor, axis: int = 0) -> torch.Tensor:
        return torch.stack(rows, axis).to(dtype).requires_grad_()

    scores.vectors = Vectors(leaf(*student, *(student / 7)[:, [1, 3, 0, 2]]), leaf(*teacher, *teacher / 7).detach())
    scores.layers = Layers(leaf(student, -student), leaf(teacher, -teacher).detach())
    scores.logits = Logits(leaf(student, -student, axis=2), leaf(teacher, -teacher, axis=2).detach())
    scores.docs = torch.eye(4).to(dtype).requires_grad_()
    row, first, second = torch.tensor([[0, 0, 1], [0, 1, 1], [1, 2, 3]])
    scores.preferences = Preferences(row, first, second, torch.tensor([0.0, 0.25, 1.0], dtype=dtype))
    total, _ = loss(scores)
    total.backward()
    assert torch.isfinite(total)
    assert torch.isfinite(learner_of(loss.needs, scores).grad).all()


def test_autocast_to_bfloat16_does_not_round_the_loss(every, randomly):
    scores = randomly(torch.float32)
    plain, _ = every()(scores)
    with torch.autocast("cpu", torch.bfloat16):
        cast, _ = every()(scores)
    assert cast.dtype == torch.float32
    assert cast.item() == plain.item()
