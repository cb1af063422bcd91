"""Which documents a list is made of."""

from __future__ import annotations

import pytest
import torch

from rerankdistill.contracts import Scores
from rerankdistill.kinds import open_kind


def two_queries(make):
    """Four documents, two of each query; the teacher scored three for the first."""
    scores = make([[1.0, 0.2, 0.5, -0.3], [0.1, 0.4, 2.0, 1.0]], [[2.0, 1.0, 0.0, 7.0], [7.0, 7.0, 1.0, 3.0]], [0, 2])
    scores.own = torch.tensor([[1, 1, 0, 0], [0, 0, 1, 1]]).bool()
    scores.scored = torch.tensor([[1, 1, 1, 0], [0, 0, 1, 1]]).bool()
    return scores


OVER = ["kl_div", "margin_mse", "ranknet", "divergence", "listnet", "taid", "list_mle", "plackett_luce", "lambda_loss"]
OVER += ["adr_mse", "approx_rank", "pearson", "pointwise_bce", "pointwise_mse"]


@pytest.mark.parametrize("kind", OVER)
def test_own_lists_ignore_the_batch(kind, make, mean_of):
    own = make([[1.0, 0.2], [2.0, 1.0]], [[2.0, 1.0], [1.0, 3.0]], [0, 0])
    loss = open_kind("losses", kind)()
    assert mean_of(loss, two_queries(make)).item() == pytest.approx(mean_of(loss, own).item())


@pytest.mark.parametrize("kind", OVER)
def test_lists_over_the_batch_hold_what_the_teacher_scored(kind, make, gradient_of):
    scores = two_queries(make)
    slope = gradient_of(open_kind("losses", kind)(over="batch"), scores)
    assert slope[0, 2] != 0
    assert slope[0, 3] == 0
    assert torch.equal(slope[1, :2], torch.zeros(2, dtype=torch.float64))


def test_infonce_takes_the_whole_batch_and_the_localized_one_does_not(make, gradient_of):
    assert (gradient_of(open_kind("losses", "infonce")(), two_queries(make)) != 0).all()
    graded = two_queries(make)
    graded.label = torch.tensor([[1.0, 0, 0, 0], [0, 0, 1, 0]])
    assert (gradient_of(open_kind("losses", "bixse")(), graded) != 0).all()
    slope = gradient_of(open_kind("losses", "localized_contrastive")(), two_queries(make))
    assert torch.equal(slope != 0, two_queries(make).own)


@pytest.mark.parametrize("kind", ["infonce", "localized_contrastive"])
def test_a_second_positive_is_not_pushed_away(kind, make, gradient_of, mean_of):
    loss = open_kind("losses", kind)(tau=1)
    scores = make([[1.0, 0.5, 0.2]], positive=[0], label=[[2.0, 1.0, 0.0]])
    assert gradient_of(loss, scores)[0, 1] == 0
    assert mean_of(loss, scores).item() == pytest.approx(mean_of(loss, make([[1.0, 0.2]], positive=[0])).item())


@pytest.mark.parametrize("kind", ["infonce", "localized_contrastive"])
def test_a_likely_false_negative_is_not_pushed_away_but_the_positive_always_counts(kind, make, gradient_of, mean_of):
    loss = open_kind("losses", kind)(tau=1)
    scores = make([[1.0, 0.5, 0.2]], positive=[0], masked=torch.tensor([[True, True, False]]))
    assert gradient_of(loss, scores)[0, 1] == 0
    assert mean_of(loss, scores).item() == pytest.approx(mean_of(loss, make([[1.0, 0.2]], positive=[0])).item())


def test_a_masked_document_still_teaches_by_its_teacher_score(make, gradient_of):
    scores = make([[1.0, 0.5, 0.2]], [[0.0, 3.0, 1.0]], [0], masked=torch.tensor([[False, True, False]]))
    assert gradient_of(open_kind("losses", "kl_div")(), scores)[0, 1] != 0


@pytest.mark.parametrize("kind", ["infonce", "localized_contrastive"])
def test_a_query_without_a_positive_does_not_dilute_the_mean(kind, make):
    loss = open_kind("losses", kind)()
    total, weight = loss(make([[1.0, 0.5], [0.3, 0.4]], positive=[-1, 0]))
    alone = loss(make([[0.3, 0.4]], positive=[0]))
    assert total.item() == pytest.approx(alone[0].item())
    assert weight == alone[1] == 1


def test_a_list_without_a_label_follows_the_teacher_alone(make, mean_of):
    scores = make([[1.0, 0.5]], [[0.0, 2.0]], label=[[0.0, 0.0]])
    plain, mixed = (mean_of(open_kind("losses", "kl_div")(alpha=a), scores).item() for a in (0, 0.7))
    assert plain == pytest.approx(mixed)


def test_margin_mse_pairs_the_given_positive_where_there_is_one_and_all_where_not(make):
    scores = make([[1.0, 0.0, 3.0]] * 2, [[0.0, 2.0, 1.0]] * 2, [2, -1])
    total, weight = open_kind("losses", "margin_mse")()(scores)
    # given: (2-1)^2 + (3+1)^2; all pairs with t_i > t_j: (1,0) (-1-2)^2, (1,2) (-3-1)^2, (2,0) (2-1)^2
    assert total.item() == pytest.approx(1 + 16 + 9 + 16 + 1)
    assert weight == 5
    only, two = open_kind("losses", "margin_mse")(pairs="given")(scores)
    assert only.item() == pytest.approx(17)
    assert two == 2


def test_a_constant_student_is_not_stuck_when_margins_are_fitted(make, gradient_of):
    loss = open_kind("losses", "margin_mse")(fit=True)
    assert gradient_of(loss, make([[0.0, 0.0, 0.0]], [[1.0, 2.0, 3.0]], [0])).abs().max() > 0


def test_the_fitted_ratio_is_a_constant_to_the_gradient(make, gradient_of):
    scores = make([[2.0, 1.0, 0.5]], [[9.0, 1.0, 3.0]], [0])
    ratio = scores.student.detach().std(1) / scores.teacher.std(1)
    slope = gradient_of(open_kind("losses", "margin_mse")(fit=True), scores)
    same = make([[2.0, 1.0, 0.5]], scores.teacher * ratio, [0])
    assert torch.allclose(slope, gradient_of(open_kind("losses", "margin_mse")(), same))


def test_ranknet_takes_a_tie_for_no_pair(make):
    total, weight = open_kind("losses", "ranknet")()(make([[1.0, 2.0], [1.0, 2.0]], [[5.0, 5.0], [1.0, 0.0]]))
    assert weight == 1
    assert total.item() == pytest.approx(torch.nn.functional.softplus(torch.tensor(1.0)).item())


def test_a_long_list_does_not_outweigh_a_short_one_in_ranknet(make, mean_of):
    long, short = [[0.0] * 6], [[0.0, 1.0]]
    scores = make(torch.zeros(2, 6), [[6.0, 5, 4, 3, 2, 1], [1.0, 0, 0, 0, 0, 0]])
    scores.student = torch.tensor([long[0], short[0] + [0.0] * 4], dtype=torch.float64)
    scores.valid = torch.tensor([[1] * 6, [1, 1, 0, 0, 0, 0]]).bool()
    expected = (torch.log(torch.tensor(2.0)) + torch.nn.functional.softplus(torch.tensor(1.0))) / 2
    assert mean_of(open_kind("losses", "ranknet")(), scores).item() == pytest.approx(expected.item())


def test_teacher_scores_far_apart_in_a_wide_batch_cost_only_the_own_pairs(make):
    student = torch.zeros(40, 4000)
    own = torch.zeros(40, 4000, dtype=torch.bool)
    for row in range(40):
        own[row, row * 100 : row * 100 + 4] = True
    scores = Scores(student, teacher=torch.rand(40, 4000), own=own)  # 40 x 4000 x 4000 pairs would be 2.5 GB
    assert open_kind("losses", "ranknet")()(scores)[1] == 40
    assert open_kind("losses", "margin_mse")()(scores)[1] == 240
    assert open_kind("losses", "lambda_loss")()(scores)[1] == 40
    assert open_kind("losses", "adr_mse")()(scores)[1] == 160
    assert open_kind("losses", "approx_rank")()(scores)[1] == 40
