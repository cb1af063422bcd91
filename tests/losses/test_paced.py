"""Queries that count by how well the student orders them already."""

from __future__ import annotations

import pytest
import torch

from rerankdistill.errors import CardError
from rerankdistill.kinds import open_kind
from rerankdistill.losses.combine import Pace, parse
from rerankdistill.losses.paced import Paced, weights_of
from rerankdistill.types import Scale

TEACHER = [[3.0, 2.0, 1.0]] * 4
STUDENT = [[3.0, 2.0, 1.0], [1.0, 2.0, 3.0], [3.0, 1.0, 2.0], [2.0, 1.0, 1.0]]
"""All right, all wrong, two pairs of three, and two and a half: a tie is half right."""


def opener(name):
    return open_kind("losses", name)


def test_weights_are_largest_at_the_edge_of_what_the_student_can(make):
    scores = make(STUDENT, TEACHER)
    assert weights_of(scores, Pace()).tolist() == pytest.approx([0, 0, 2 / 9, 5 / 36])
    assert weights_of(scores, Pace(a=0, b=2)).tolist() == pytest.approx([0, 1, 1 / 9, 1 / 36])
    assert weights_of(make([[3.0, 1.0, 2.0, 0.0]], [[1.0, 1.0, 1.0, 0.0]]), Pace(a=1, b=0)).tolist() == [1]


def test_solved_and_hopeless_lists_count_nothing(make, mean_of, gradient_of):
    loss = Paced(opener("kl_div")(), Pace())
    scores = make(STUDENT[:3], TEACHER[:3])
    total, weight = loss(scores)
    alone, _ = opener("kl_div")()(make(STUDENT[2:3], TEACHER[2:3]))
    assert weight.item() == pytest.approx(2 / 9)
    assert total.item() == pytest.approx(2 / 9 * alone.item())
    slope = gradient_of(loss, scores)
    assert not slope[:2].any()
    assert slope[2].any()
    total, weight = loss(make(STUDENT[:2], TEACHER[:2]))
    total.backward()
    assert total.item() == weight.item() == 0


def test_a_weight_has_no_gradient(make, gradient_of):
    scores = make(STUDENT[2:3], TEACHER[2:3])
    plain = gradient_of(opener("kl_div")(), scores)
    assert torch.allclose(gradient_of(Paced(opener("kl_div")(), Pace()), scores), 2 / 9 * plain)


def test_where_all_count_alike_it_is_the_loss_itself(every_by_query, randomly, learner_of):
    scores, loss = randomly(), every_by_query()
    plain, weight = loss(scores)
    total, same = Paced(loss, Pace(a=0, b=0))(scores)
    assert torch.allclose(total, plain)
    assert same.item() == pytest.approx(weight.item())
    leaf = learner_of(loss.needs, scores)
    found, wanted = (torch.autograd.grad(each, leaf)[0] for each in (total, plain))
    assert torch.allclose(found, wanted, atol=1e-12)


def test_sums_and_weights_of_micro_batches_still_add_up(every_by_query, randomly, rows_of):
    scores, loss = randomly(b=4), Paced(every_by_query(), Pace(a=1, b=2))
    whole = loss(scores)
    parts = [loss(rows_of(scores, slice(0, 1))), loss(rows_of(scores, slice(1, 4)))]
    for one, other in zip(whole, zip(*parts, strict=True), strict=True):
        assert torch.allclose(sum(other), one)


def test_padding_and_documents_without_a_score_do_not_tell_how_hard_a_query_is(make):
    scores = make([[3.0, 1.0, 2.0, 9.0]], [[3.0, 2.0, 1.0, float("nan")]])
    for name in ("valid", "scored", "own"):
        other = make(scores.student, scores.teacher, **{name: torch.tensor([[True] * 3 + [False]])})
        assert weights_of(other, Pace()).item() == pytest.approx(2 / 9)
    flat = make([[3.0, 1.0]], [[2.0, 2.0]])
    assert weights_of(flat, Pace(a=0, b=0)).item() == 0, "a list that the teacher does not order"


def test_a_sum_of_losses_is_paced_term_by_term_and_at_every_moment(randomly, mean_of):
    scores, pace = randomly(), Pace(a=1, b=1)
    options = {"kl_div": {"tau_teacher": {"from": 2, "to": 1}}}
    loss = parse("kl_div + 0.1 infonce", options, opener, pace)
    terms = Paced(opener("kl_div")(tau_teacher=1.5), pace), Paced(opener("infonce")(), pace)
    expected = mean_of(terms[0], scores) + 0.1 * mean_of(terms[1], scores)
    assert mean_of(loss.at(0.5), scores).item() == pytest.approx(expected.item())
    assert loss.terms[0].loss.options.tau_teacher == 2


def test_labels_alone_are_paced_by_a_teacher_of_any_scale():
    loss = parse("infonce", {}, opener, Pace())
    assert {"student", "teacher", "positive"} == loss.needs
    assert Scale.RANK in loss.eats
    assert Scale.RANK not in parse("kl_div", {}, opener, Pace()).eats


def test_a_loss_on_vectors_has_no_queries_to_weigh():
    with pytest.raises(CardError, match="no queries"):
        parse("embed_mse", {}, opener, Pace())


def test_exponents_below_zero_are_refused():
    for wrong in ({"a": -1}, {"b": float("nan")}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Pace(**wrong)
