"""Traps of public code, each named after what it would have cost."""

from __future__ import annotations

import warnings

import pytest
import torch

from rerankdistill.contracts import Scores, Vectors
from rerankdistill.errors import CardError, DataError, RerankDistillError, RerankDistillWarning
from rerankdistill.kinds import open_kind

LISTWISE = ["kl_div", "divergence", "listnet", "taid", "list_mle", "plackett_luce", "pearson"]
BY_RANK = ["margin_mse", "ranknet", "lambda_loss", "adr_mse", "approx_rank"]
POINTWISE = ["pointwise_bce", "pointwise_mse"]
WITH_TEACHER = LISTWISE + BY_RANK + POINTWISE
ON_LISTS = [*LISTWISE, *BY_RANK, "infonce", "localized_contrastive"]


@pytest.mark.parametrize("kind", ON_LISTS)
def test_a_list_of_one_candidate_does_not_train_on_nothing_unnoticed(kind, make):
    scores = make([[1.0, 2.0, 9.0], [3.0, 9.0, 9.0]], [[1.0, 0.0, 0.0]] * 2, [0, 0])
    scores.valid = torch.tensor([[1, 1, 0], [1, 0, 0]]).bool()
    loss = open_kind("losses", kind)()
    with pytest.warns(RerankDistillWarning, match="one candidate"):
        total, weight = loss(scores)
    alone, same_weight = loss(make([[1.0, 2.0]], [[1.0, 0.0]], [0]))
    assert total.item() == pytest.approx(alone.item())
    assert weight == same_weight == (2 if kind == "adr_mse" else 1)  # which counts documents
    total.backward()
    assert torch.equal(scores.student.grad[1], torch.zeros(3, dtype=torch.float64))


@pytest.mark.parametrize("kind", [*POINTWISE, "bixse"])
def test_a_loss_on_single_documents_learns_from_a_list_of_one_too(kind, make, gradient_of):
    scores = make([[0.1, 0.2], [0.3, 9.0]], [[0.0, 0.0]] * 2, label=[[1.0, 0.0]] * 2)
    scores.valid = torch.tensor([[1, 1], [1, 0]]).bool()
    slope = gradient_of(open_kind("losses", kind)(), scores)
    assert torch.equal(slope != 0, scores.valid)


def test_the_warning_of_a_list_of_one_comes_once_in_a_training(make):
    loss = open_kind("losses", "kl_div")()
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("default")
        for _ in range(5):
            loss(make([[1.0]], [[2.0]]))
    assert len(seen) == 1


@pytest.mark.parametrize("kind", WITH_TEACHER)
@pytest.mark.parametrize("shape", [(2, 1), (1, 3), (2, 2), (3,), (2, 3, 1)])
def test_a_narrower_teacher_row_is_refused_and_never_broadcast(kind, shape, make):
    scores = make(torch.zeros(2, 3), positive=[0, 0])
    scores.teacher = torch.zeros(shape)
    with pytest.raises(DataError, match="shape"):
        open_kind("losses", kind)()(scores)


@pytest.mark.parametrize("field", ["valid", "scored", "own", "label", "masked"])
def test_every_other_field_has_the_students_shape_too(field, make):
    scores = make(torch.zeros(2, 3), torch.zeros(2, 3), [0, 0])
    setattr(scores, field, torch.ones(2, 1).bool())
    with pytest.raises(DataError, match=field):
        open_kind("losses", "kl_div")()(scores)


def test_a_positive_beyond_the_columns_is_refused(make):
    with pytest.raises(DataError, match="positive"):
        open_kind("losses", "infonce")()(make(torch.zeros(2, 3), positive=[0, 3]))


@pytest.mark.parametrize("kind", WITH_TEACHER)
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_nan_of_the_teacher_is_refused_where_it_counts_and_harmless_where_not(kind, bad, make):
    scores = make([[1.0, 2.0, 3.0]], [[0.5, bad, 0.1]], [0])
    with pytest.raises(DataError, match="row 0, column 1"):
        open_kind("losses", kind)()(scores)
    scores.scored = torch.tensor([[True, False, True]])
    total, weight = open_kind("losses", kind)()(scores)
    assert torch.isfinite(total)
    assert weight == (2 if kind in {*POINTWISE, "adr_mse"} else 1)  # those count documents


@pytest.mark.parametrize("kind", ON_LISTS + POINTWISE)
def test_a_diverged_student_stops_the_training(kind, make):
    with pytest.raises(RerankDistillError, match="not finite at row 0, column 2"):
        open_kind("losses", kind)()(make([[1.0, 2.0, torch.nan]], [[1.0, 2.0, 3.0]], [0]))


@pytest.mark.parametrize("tau", [0, -1, 1e-300, 1e-5, float("nan"), float("inf")])
def test_a_temperature_that_underflows_is_refused(tau):
    for kind, name in [("kl_div", "tau_student"), ("kl_div", "tau_teacher"), ("infonce", "tau")]:
        with pytest.raises(CardError, match=name):
            open_kind("losses", kind)(**{name: tau})


def test_the_smallest_temperature_stays_finite(make, gradient_of):
    loss = open_kind("losses", "kl_div")(tau_student=1e-4, tau_teacher=1e-4)
    scores = make([[800.0, -800.0, 0.0]], [[-800.0, 800.0, 0.0]], dtype=torch.float32)
    assert torch.isfinite(gradient_of(loss, scores)).all()


def test_all_mistakes_of_the_options_are_told_at_once():
    with pytest.raises(CardError, match="2 mistakes"):
        open_kind("losses", "kl_div")(tau_student=0, alpha=2)


def test_vectors_of_another_dimension_are_refused_with_the_way_out():
    scores = Scores(torch.empty(0, 0), vectors=Vectors(torch.ones(2, 3), torch.ones(2, 4)))
    for kind in ("embed_cosine", "embed_mse"):
        with pytest.raises(DataError, match="similarity_mse"):
            open_kind("losses", kind)()(scores)
    total, _ = open_kind("losses", "similarity_mse")()(scores)
    assert total.item() == pytest.approx(0)


def test_vectors_of_other_texts_or_with_nan_are_refused():
    short = Scores(torch.empty(0, 0), vectors=Vectors(torch.ones(3, 2), torch.ones(2, 2)))
    holed = Scores(torch.empty(0, 0), vectors=Vectors(torch.ones(2, 2), torch.full((2, 2), torch.nan)))
    for kind in ("embed_cosine", "embed_mse", "similarity_mse"):
        with pytest.raises(DataError, match="one row per text"):
            open_kind("losses", kind)()(short)
        with pytest.raises(DataError, match="not finite"):
            open_kind("losses", kind)()(holed)


def test_prefixes_longer_than_the_vector_are_refused():
    scores = Scores(torch.empty(0, 0), vectors=Vectors(torch.ones(2, 3), torch.ones(2, 4)))
    with pytest.raises(CardError, match="dims"):
        open_kind("losses", "similarity_mse")(dims=(4,))(scores)
