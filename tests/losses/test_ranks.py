"""Orders, ties and lengths: where losses that look at positions go wrong."""

from __future__ import annotations

import math

import pytest
import torch

from rerankdistill.errors import CardError, DataError
from rerankdistill.kinds import open_kind
from rerankdistill.losses.combine import parse
from rerankdistill.types import Scale


@pytest.mark.parametrize("kind", ["list_mle", "plackett_luce"])
def test_tied_documents_are_picked_by_column(kind, make, mean_of):
    loss = open_kind("losses", kind)()
    tied = mean_of(loss, make([[0.3, -0.2, 1.0]], [[1.0, 2.0, 1.0]]))
    broken = mean_of(loss, make([[0.3, -0.2, 1.0]], [[1.0 + 1e-9, 2.0, 1.0]]))
    other = mean_of(loss, make([[0.3, -0.2, 1.0]], [[1.0, 2.0, 1.0 + 1e-9]]))
    assert tied.item() == pytest.approx(broken.item())
    assert tied.item() != pytest.approx(other.item())


def test_ties_stay_in_column_order_when_unscored_columns_lie_between(make, mean_of):
    loss = open_kind("losses", "list_mle")()
    scores = make([[9.0, 0.3, 9.0, 1.0, -0.2]], [[0.0, 1.0, 0.0, 1.0, 2.0]])
    scores.scored = torch.tensor([[0, 1, 0, 1, 1]]).bool()
    assert mean_of(loss, scores).item() == pytest.approx(
        mean_of(loss, make([[0.3, 1.0, -0.2]], [[1.0, 1.0, 2.0]])).item()
    )


@pytest.mark.parametrize("positions", ["sum", "mean", "weighted"])
def test_a_long_list_does_not_overflow(positions, make, gradient_of):
    """2^1500 is no float, and e^800 is none either."""
    chance = torch.Generator().manual_seed(0)
    student, teacher = (800 * torch.randn(1, 1500, generator=chance) for _ in range(2))
    scores = make(student, teacher, dtype=torch.float32)
    loss = open_kind("losses", "list_mle")(positions=positions)
    assert torch.isfinite(loss(scores)[0])
    slope = gradient_of(loss, scores)
    assert torch.isfinite(slope).all()
    assert slope.abs().max() > 0


@pytest.mark.parametrize("kind", ["list_mle", "plackett_luce"])
def test_padding_is_not_picked_before_documents_that_score_very_low(kind, make):
    loss, teacher = open_kind("losses", kind)(), [[3.0, 2.0, 1.0]] * 2
    scores = make([[-8e5, -8e5 - 1, -8e5], [0.0, -1.0, 0.0]], teacher)
    scores.valid = torch.tensor([[True, True, False], [True, True, True]])
    low, _ = loss(scores)
    scores.student = torch.tensor([[0.0, -1.0, 0.0]] * 2).double()
    assert low.item() == pytest.approx(loss(scores)[0].item())


def test_short_and_long_lists_weigh_their_picks_by_their_own_length(make, mean_of):
    loss = open_kind("losses", "list_mle")(positions="weighted")
    scores = make([[0.1, 0.5, 0.2, 0.9], [0.4, -0.3, 7.0, 7.0]], [[4.0, 3.0, 2.0, 1.0]] * 2)
    scores.valid = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]]).bool()
    apart = [make([[0.1, 0.5, 0.2, 0.9]], [[4.0, 3.0, 2.0, 1.0]]), make([[0.4, -0.3]], [[2.0, 1.0]])]
    assert mean_of(loss, scores).item() == pytest.approx(sum(mean_of(loss, one).item() for one in apart) / 2)


@pytest.mark.parametrize("kind", ["adr_mse", "list_mle", "lambda_loss", "approx_rank", "listnet", "pearson"])
def test_the_teacher_is_not_ignored(kind, make, mean_of):
    """FIRST's ADR-MSE holds the student against its own ranks, its Lambda and ListNet against its own logits."""
    loss, student = open_kind("losses", kind)(), [[3.0, 2.0, 1.0]]
    agreeing, opposed = make(student, [[30.0, 20.0, 10.0]]), make(student, [[1.0, 2.0, 3.0]])
    assert mean_of(loss, agreeing) < mean_of(loss, opposed)


def test_adr_mse_at_rest_is_where_the_ranks_agree(make, mean_of):
    loss = open_kind("losses", "adr_mse")(alpha=100)
    assert mean_of(loss, make([[0.9, 0.1, 0.5]], [[7.0, -3.0, 2.0]])).item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    ("kind", "options"),
    [("lambda_loss", {"grades": "label"}), ("approx_rank", {"grades": "label"})],
)
def test_a_list_without_a_relevant_document_does_not_dilute_the_mean(kind, options, make):
    loss = open_kind("losses", kind)(**options)
    total, weight = loss(make([[1.0, 0.5], [0.3, 0.4]], label=[[0.0, 0.0], [1.0, 0.0]]))
    alone, same = loss(make([[0.3, 0.4]], label=[[1.0, 0.0]]))
    assert total.item() == pytest.approx(alone.item())
    assert weight == same == 1


@pytest.mark.parametrize("kind", ["lambda_loss", "approx_rank"])
def test_grades_in_the_hundreds_do_not_overflow_and_small_ones_are_unharmed(kind, make, mean_of, gradient_of):
    loss = open_kind("losses", kind)(grades="label")
    scores = make([[1.0, 0.5, 0.2]], label=[[0.0, 400.0, 1.0]], dtype=torch.float32)
    assert torch.isfinite(mean_of(loss, scores))
    assert torch.isfinite(gradient_of(loss, scores)).all()
    expected = mean_of(loss, make([[1.0, 0.5, 0.2]], label=[[0.0, 50.0, 1.0]])).item()
    assert mean_of(loss, scores).item() == pytest.approx(expected, rel=1e-5)


def test_the_ideal_counts_the_best_documents_and_not_the_padding(make, mean_of):
    loss = open_kind("losses", "approx_rank")(grades="label")
    scores = make([[1.0, 0.5, 0.2]], label=[[1.0, 0.0, 9.0]])
    scores.valid = torch.tensor([[True, True, False]])
    assert mean_of(loss, scores).item() == pytest.approx(mean_of(loss, make([[1.0, 0.5]], label=[[1.0, 0.0]])).item())


def test_a_relevant_document_below_the_students_top_k_can_rise_unless_both_must_stand_in_it(make, gradient_of):
    scores = make([[3.0, 2.0, 1.0]], label=[[0.0, 0.0, 1.0]])
    either, both = (
        open_kind("losses", "lambda_loss")(grades="label", scheme="lambdarank", k=2, within=within)
        for within in ("either", "both")
    )
    assert gradient_of(either, scores)[0, 2] < 0
    assert torch.equal(gradient_of(both, scores), torch.zeros(1, 3, dtype=torch.float64))
    assert both(scores)[1] == 0


def test_the_weights_of_lambda_loss_have_no_gradient(make, gradient_of):
    """w constant: the gradient of the winner is -w sigmoid(s_j - s_i), with no more terms."""
    scores = make([[0.7, 0.2]], label=[[1.0, 0.0]])
    slope = gradient_of(open_kind("losses", "lambda_loss")(grades="label", scheme="lambdarank"), scores)
    weight = (1 - 1 / math.log2(3)) * 1
    assert slope[0, 0].item() == pytest.approx(-weight / (1 + math.exp(0.5)))
    assert slope[0, 1].item() == pytest.approx(weight / (1 + math.exp(0.5)))


def test_a_pair_in_ranknet_by_ranks_is_averaged_over_the_number_of_pairs_not_over_their_weights(make, mean_of):
    loss = open_kind("losses", "ranknet")(weights="ranks")
    value = mean_of(loss, make([[0.0, 0.0, 0.0]], [[3.0, 2.0, 1.0]])).item()
    assert value == pytest.approx(math.log(2) * (1 / 3 + 1 / 4 + 1 / 5) / 3)


def test_soft_ranknet_takes_a_tie_for_an_undecided_pair(make):
    total, weight = open_kind("losses", "ranknet")(targets="soft")(make([[1.0, 0.0]], [[5.0, 5.0]]))
    softplus = math.log(1 + math.exp(-1))
    assert weight == 1
    assert total.item() == pytest.approx(softplus + 0.5)


def test_a_constant_student_gets_a_finite_push_from_pearson(make, gradient_of):
    slope = gradient_of(open_kind("losses", "pearson")(), make([[2.0, 2.0, 2.0]], [[3.0, 2.0, 1.0]]))
    assert torch.isfinite(slope).all()
    assert slope[0, 0] < 0 < slope[0, 2]


@pytest.mark.parametrize("constant", [0.1, 5.0, -5.0])
def test_a_constant_teacher_teaches_pearson_nothing_padding_or_not(constant, make):
    scores = make([[1.0, 0.5, 0.1], [1.0, 0.5, 9.0]], [[constant] * 3] * 2)
    scores.valid = torch.tensor([[1, 1, 1], [1, 1, 0]]).bool()
    total, weight = open_kind("losses", "pearson")()(scores)
    assert total.item() == weight.item() == 0


def test_pearson_reads_a_teacher_whose_probabilities_are_tiny(make, mean_of):
    teacher = torch.tensor([[3e-30, 2e-30, 1e-30]])
    scores = make([[3.0, 2.0, 1.0]], teacher, dtype=torch.float32)
    assert mean_of(open_kind("losses", "pearson")(), scores).item() == pytest.approx(0, abs=1e-6)


def test_a_likely_false_negative_is_not_pushed_away_by_bixse_but_a_labelled_one_counts(make, gradient_of):
    scores = make([[0.9, 0.8, 0.7]], label=[[1.0, 0.0, 0.0]], masked=torch.tensor([[True, True, False]]))
    slope = gradient_of(open_kind("losses", "bixse")(), scores)
    assert torch.equal(slope[0] != 0, torch.tensor([True, False, True]))


@pytest.mark.parametrize("bad", [-0.01, 1.01, 7.0])
def test_what_is_no_probability_is_refused_as_one(bad, make):
    loss = open_kind("losses", "pointwise_bce")(target="probability")
    with pytest.raises(DataError, match="no probability"):
        loss(make([[1.0, 2.0]], [[0.5, bad]]))
    padded = make([[1.0, 2.0]], [[0.5, bad]], valid=torch.tensor([[True, False]]))
    assert torch.isfinite(loss(padded)[0])


@pytest.mark.parametrize(
    ("text", "options", "eaten", "refused"),
    [
        ("ranknet", {}, {Scale.RANK, Scale.LOGIT}, set()),
        ("ranknet", {"ranknet": {"targets": "soft"}}, {Scale.LOGIT}, {Scale.RANK}),
        ("margin_mse", {"margin_mse": {"margin": 1}}, {Scale.RANK, Scale.LOGIT}, set()),
        ("pointwise_bce", {}, {Scale.LOGIT}, {Scale.PROBABILITY, Scale.LEXICAL, Scale.RANK}),
        ("pointwise_bce", {"pointwise_bce": {"target": "probability"}}, {Scale.PROBABILITY}, {Scale.LOGIT}),
        ("list_mle + pointwise_mse", {}, {Scale.LOGIT}, {Scale.RANK}),
    ],
)
def test_what_a_loss_eats_follows_its_options_in_a_sum_too(text, options, eaten, refused):
    eats = parse(text, options, lambda name: open_kind("losses", name)).eats
    assert eaten <= eats
    assert not refused & eats


@pytest.mark.parametrize("kind", ["lambda_loss", "approx_rank", "pointwise_bce"])
def test_a_loss_on_labels_asks_for_no_teacher(kind, make):
    option = {"target": "label"} if kind == "pointwise_bce" else {"grades": "label"}
    loss = open_kind("losses", kind)(**option)
    assert loss.needs == {"student", "label"}
    assert loss.eats == frozenset()
    assert loss(make([[1.0, 2.0]], label=[[1.0, 0.0]]))[1] > 0


@pytest.mark.parametrize("other", [{"fit": True}, {"scale": 2.0}, {"pairs": "all_n2"}])
def test_a_constant_margin_beside_what_it_would_silence_is_refused(other):
    with pytest.raises(CardError, match="constant margin"):
        open_kind("losses", "margin_mse")(margin=1, **other)
