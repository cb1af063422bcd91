"""Losses on what a teacher says beside scores: comparisons of two documents, scores by layer, both logits."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rerankdistill.contracts import Layers, Logits, Preferences, Scores
from rerankdistill.errors import CardError, DataError, RerankDistillError
from rerankdistill.kinds import open_kind

SHAPES = {"b": st.integers(1, 4), "m": st.integers(2, 7), "seed": st.integers(0, 10_000)}
quick = settings(max_examples=15, deadline=None)


def draw(b: int, m: int, seed: int) -> Scores:
    """Every two documents of each list are compared, by a teacher whose scores say how surely."""
    chance = torch.Generator().manual_seed(seed)
    student, teacher = (3 * torch.randn(b, m, generator=chance, dtype=torch.float64) for _ in range(2))
    one, other = torch.triu_indices(m, m, 1)
    row = torch.arange(b).repeat_interleave(len(one))
    first, second = one.repeat(b), other.repeat(b)
    said = torch.sigmoid(teacher[row, first] - teacher[row, second])
    made = Scores(student.requires_grad_(), teacher=teacher, positive=torch.randint(0, m, (b,), generator=chance))
    made.preferences = Preferences(row, first, second, said)
    made.layers = Layers(*(torch.randn(3, b, m, generator=chance, dtype=torch.float64) for _ in range(2)))
    made.layers.student.requires_grad_()
    return made


def mean(kind: str, scores: Scores, **options) -> torch.Tensor:
    total, weight = open_kind("losses", kind)(**options)(scores)
    return total / weight


def slope(value: torch.Tensor, leaf: torch.Tensor) -> torch.Tensor:
    (found,) = torch.autograd.grad(value, leaf, retain_graph=True)
    return found


@given(**SHAPES)
@quick
def test_comparisons_drawn_from_scores_teach_what_ranknet_with_soft_targets_does(b, m, seed):
    scores = draw(b, m, seed)
    expected = mean("ranknet", scores, targets="soft", reduction="mean_pairs")
    found = mean("pairwise_preference", scores, form="bce")
    assert torch.allclose(found, expected, atol=1e-10)
    assert torch.allclose(slope(found, scores.student), slope(expected, scores.student), atol=1e-12)


@given(**SHAPES)
@quick
def test_kl_is_bce_less_the_entropy_of_what_was_said_with_the_same_gradient(b, m, seed):
    scores = draw(b, m, seed)
    said = scores.preferences.probability
    entropy = -(torch.xlogy(said, said) + torch.xlogy(1 - said, 1 - said)).mean()
    kl, bce = (mean("pairwise_preference", scores, form=form) for form in ("kl", "bce"))
    assert torch.allclose(bce - kl, entropy, atol=1e-10)
    assert torch.allclose(slope(kl, scores.student), slope(bce, scores.student), atol=1e-12)


@pytest.mark.parametrize("kind", ["pairwise_preference", "partial_plackett_luce"])
@given(**SHAPES, shift=st.floats(-50, 50))
@quick
def test_neither_a_constant_nor_the_order_of_documents_nor_how_a_question_was_put_matters(kind, b, m, seed, shift):
    scores, options = draw(b, m, seed), {} if kind == "pairwise_preference" else {"tau": 1}
    theirs, order = scores.preferences, torch.randperm(m, generator=torch.Generator().manual_seed(seed))
    at = order.argsort()
    turned = Scores((scores.student.detach() + shift)[:, order].requires_grad_())
    turned.preferences = Preferences(theirs.row, at[theirs.second], at[theirs.first], 1 - theirs.probability)
    one, other = mean(kind, scores, **options), mean(kind, turned, **options)
    assert torch.allclose(one, other, atol=1e-8)
    assert torch.allclose(slope(one, scores.student)[:, order], slope(other, turned.student), atol=1e-8)


@given(**SHAPES, shift=st.floats(-5, 5))
@quick
def test_a_student_that_prefers_as_surely_as_its_teacher_has_nothing_to_learn(b, m, seed, shift):
    scores = draw(b, m, seed)
    scores.student = (scores.teacher + shift).requires_grad_()
    value = mean("pairwise_preference", scores)
    assert abs(value.item()) < 1e-12
    assert slope(value, scores.student).abs().max() < 1e-12


@given(**SHAPES)
@quick
def test_a_student_that_reads_pairs_picks_as_ranknet_does(b, m, seed):
    scores = draw(b, m, seed)
    expected = mean("ranknet", scores, reduction="mean_pairs")
    assert torch.allclose(mean("partial_plackett_luce", scores, tau=1), expected, atol=1e-10)


def compared(make, student, first, second, probability, **more):
    scores = make([student], **more)
    scores.preferences = Preferences(
        torch.zeros(len(first), dtype=torch.long), *map(torch.tensor, (first, second, probability))
    )
    return scores


def test_what_was_compared_as_equal_picks_nothing_first(make):
    scores = compared(make, [1.0, 0.0, 2.0], [0, 0], [1, 2], [0.5, 0.9])
    total, weight = open_kind("losses", "partial_plackett_luce")(tau=1)(scores)
    assert weight == 1
    assert total.item() == pytest.approx(math.log(1 + math.exp(1)))


def test_the_rest_of_a_list_and_likely_false_negatives_take_no_part_in_a_pick(make, gradient_of):
    loss = open_kind("losses", "partial_plackett_luce")(tau=1)
    own = torch.tensor([[True, True, True, False, False, False]])
    label, masked = [[0.0, 0, 0, 0, 1.0, 0]], torch.tensor([[False] * 5 + [True]])
    scores = compared(make, [0.0] * 6, [0], [1], [0.9], own=own, label=label, masked=masked)
    assert torch.equal(gradient_of(loss, scores)[0] != 0, torch.tensor([True, True, False, True, False, False]))


@pytest.mark.parametrize("kind", ["pairwise_preference", "partial_plackett_luce"])
def test_a_comparison_with_a_document_that_is_not_there_counts_nothing(kind, make):
    loss, valid = open_kind("losses", kind)(), torch.tensor([[True, True, False]])
    scores = compared(make, [1.0, 2.0, math.nan], [0, 0, 2], [1, 2, 1], [0.9, 0.2, math.nan], valid=valid)
    total, weight = loss(scores)
    assert weight == 1
    total.backward()
    assert scores.student.grad[0, 2] == 0
    scores.preferences = Preferences(*(part[:0] for part in (torch.zeros(1).long(),) * 3), torch.empty(0))
    assert [each.item() for each in loss(scores)] == [0, 0]


@pytest.mark.parametrize("kind", ["pairwise_preference", "partial_plackett_luce"])
@pytest.mark.parametrize("said", [math.nan, math.inf, -0.01, 1.01])
def test_what_is_no_probability_of_a_preference_is_refused(kind, said, make):
    with pytest.raises(DataError, match="no probability"):
        open_kind("losses", kind)()(compared(make, [1.0, 2.0], [0], [1], [said]))


@pytest.mark.parametrize("column", [-1, 2])
def test_a_comparison_of_a_column_that_is_not_there_is_refused_and_not_wrapped_around(column, make):
    with pytest.raises(DataError, match="has not"):
        open_kind("losses", "pairwise_preference")()(compared(make, [1.0, 2.0], [0], [column], [0.7]))
    scores = compared(make, [1.0, 2.0], [0], [1], [0.7])
    scores.preferences.first = torch.tensor([0, 1])
    with pytest.raises(DataError, match="as many"):
        open_kind("losses", "pairwise_preference")()(scores)


def test_a_diverged_student_stops_the_training_whatever_it_learns_from(make):
    scores = make([[1.0, math.nan]], positive=[0])
    scores.preferences = Preferences(*torch.tensor([[0], [0], [1]]), torch.tensor([0.5]))
    with pytest.raises(RerankDistillError, match="not finite at row 0, column 1"):
        open_kind("losses", "pairwise_preference")()(scores)
    plain = make([[1.0, 0.0]], positive=[0])
    plain.layers = Layers(scores.student[None], torch.zeros(1, 1, 2))
    plain.logits = Logits(torch.tensor([[[0.0, 0.0], [0.0, math.inf]]]), torch.zeros(1, 2, 2))
    for kind in ("layer_alignment", "two_logit_mse"):
        with pytest.raises(RerankDistillError, match="not finite at row 0, column 1"):
            open_kind("losses", kind)()(plain)


# Layers


@given(**SHAPES, weights=st.sampled_from(["batch", "query", "even"]))
@quick
def test_layers_that_equal_the_teachers_up_to_a_constant_have_nothing_to_learn(b, m, seed, weights):
    scores = draw(b, m, seed)
    scores.layers.student = (scores.layers.teacher + 3).requires_grad_()
    value = mean("layer_alignment", scores, weights=weights)
    assert abs(value.item()) < 1e-12
    assert slope(value, scores.layers.student).abs().max() < 1e-12


@given(**SHAPES, tau=st.floats(0.2, 5))
@quick
def test_layers_that_weigh_alike_are_the_mean_of_kl_layer_by_layer(b, m, seed, tau):
    scores = draw(b, m, seed)
    pairs = zip(scores.layers.student, scores.layers.teacher, strict=True)
    each = [mean("kl_div", Scores(mine, teacher=theirs), tau_student=tau, tau_teacher=2) for mine, theirs in pairs]
    found = mean("layer_alignment", scores, weights="even", tau_student=tau, tau_teacher=2)
    assert torch.allclose(found, torch.stack(each).mean(), atol=1e-10)
    assert torch.allclose(mean("layer_alignment", scores, tau_layer=1e4, tau_student=tau, tau_teacher=2), found, 1e-2)


def test_the_layer_at_which_the_teacher_finds_the_positive_counts_most(make, gradient_of):
    scores = make([[0.0, 0.0]] * 2, positive=[0, -1])
    knows, errs = [[3.0, 0.0], [0.0, 9.0]], [[0.0, 3.0], [9.0, 0.0]]  # the second query has no positive: no say in it
    scores.layers = Layers(torch.zeros(2, 2, 2).requires_grad_(), torch.tensor([knows, errs]))
    found = gradient_of(open_kind("losses", "layer_alignment")(tau_layer=1), scores).abs().sum((1, 2))
    assert found[0] > 5 * found[1]
    found = gradient_of(open_kind("losses", "layer_alignment")(tau_layer=1, weights="query"), scores).abs().sum(2)
    assert found[0, 0] > 5 * found[1, 0]
    assert found[0, 1] == pytest.approx(found[1, 1].item())
    scores.positive = torch.tensor([-1, -1])
    found = gradient_of(open_kind("losses", "layer_alignment")(tau_layer=1), scores).abs().sum((1, 2))
    assert found[0] == pytest.approx(found[1].item())


def test_layers_weigh_by_the_batch_unless_each_query_weighs_them_itself(randomly, rows_of):
    scores = randomly(b=4)
    scores.positive = torch.arange(4)
    for weights, same in (("batch", False), ("query", True)):
        loss = open_kind("losses", "layer_alignment")(tau_layer=0.1, weights=weights)
        parts = [loss(rows_of(scores, slice(at, at + 2)))[0] for at in (0, 2)]
        assert (sum(parts).item() == pytest.approx(loss(scores)[0].item(), rel=1e-9)) == same


@pytest.mark.parametrize("shape", [(2, 1, 2), (3, 1, 3), (2, 2, 3), (1, 3), (0, 1, 3)])
def test_layers_of_another_shape_are_refused_and_never_broadcast(shape, make):
    scores = make([[1.0, 2.0, 3.0]], positive=[0], layers=None)
    scores.layers = Layers(torch.zeros(2, 1, 3), torch.zeros(shape))
    if shape == (0, 1, 3):
        scores.layers.student = torch.zeros(shape)
    with pytest.raises(DataError, match="layers must be"):
        open_kind("losses", "layer_alignment")()(scores)


def test_a_nan_in_a_teachers_layer_is_refused_where_it_counts_and_harmless_where_not(make):
    scores = make([[1.0, 2.0, 3.0]], positive=[0])
    scores.layers = Layers(torch.zeros(2, 1, 3), torch.tensor([[[0.0, 1.0, 2.0]], [[0.0, 1.0, math.nan]]]))
    with pytest.raises(DataError, match="row 0, column 2"):
        open_kind("losses", "layer_alignment")()(scores)
    scores.own = torch.tensor([[True, True, False]])
    assert torch.isfinite(open_kind("losses", "layer_alignment")(over="own")(scores)[0])


def test_a_temperature_of_layers_that_underflows_is_refused():
    with pytest.raises(CardError, match="tau_layer"):
        open_kind("losses", "layer_alignment")(tau_layer=0)


# Both logits


def both(student, teacher, **more) -> Scores:
    pair = Logits(torch.tensor(student).double().requires_grad_(), torch.tensor(teacher).double())
    return Scores(torch.zeros(pair.student.shape[:2]), logits=pair, **more)


def test_where_a_teachers_two_logits_lie_does_not_matter_unless_it_is_to(gradient_of):
    student = [[[0.5, -1.0], [0.0, 2.0]]]
    near, far = both(student, [[[-1.0, 1.0], [3.0, 0.0]]]), both(student, [[[6.0, 8.0], [-2.0, -5.0]]])
    loss = open_kind("losses", "two_logit_mse")
    assert loss()(near)[0].item() == pytest.approx(loss()(far)[0].item())
    assert loss(centre=False)(near)[0].item() != pytest.approx(loss(centre=False)(far)[0].item())
    at_rest = both([[[-1.0, 1.0], [1.5, -1.5]]], [[[6.0, 8.0], [-2.0, -5.0]]])
    assert not gradient_of(loss(), at_rest).any()


@pytest.mark.parametrize("silent", [[math.nan, math.nan], [1.0, math.nan]])
def test_a_document_of_which_the_teacher_said_nothing_counts_nothing(silent):
    scores = both([[[0.0, 0.0], [5.0, 7.0]]], [[[1.0, 5.0], silent]])
    total, weight = open_kind("losses", "two_logit_mse")()(scores)
    assert (total / weight).item() == pytest.approx(4)
    assert weight == 2
    total.backward()
    assert not scores.logits.student.grad[0, 1].any()


def test_infinite_logits_and_those_of_another_shape_are_refused():
    with pytest.raises(DataError, match="row 0, column 0"):
        open_kind("losses", "two_logit_mse")()(both([[[0.0, 0.0]]], [[[-math.inf, 0.0]]]))
    for student, teacher in (([[[0.0]]], [[[0.0]]]), ([[[0.0, 0.0]]], [[[0.0, 0.0], [0.0, 0.0]]])):
        with pytest.raises(DataError, match="logits must be"):
            open_kind("losses", "two_logit_mse")()(both(student, teacher))
