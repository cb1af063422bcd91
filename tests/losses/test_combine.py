from __future__ import annotations

import pytest
import torch

from rerankdistill.contracts import Scores
from rerankdistill.errors import CardError
from rerankdistill.kinds import open_kind
from rerankdistill.losses.combine import Weighted, parse
from rerankdistill.types import Scale


def opener(name):
    return open_kind("losses", name)


def test_a_sum_is_the_weighted_sum_of_the_means(randomly, mean_of):
    scores = randomly()
    loss = parse("kl_div + 0.1 infonce", {"kl_div": {"tau_teacher": 0.5}, "infonce": {"tau": 2}}, opener)
    kl, nce = opener("kl_div")(tau_teacher=0.5), opener("infonce")(tau=2)
    assert mean_of(loss, scores).item() == pytest.approx((mean_of(kl, scores) + 0.1 * mean_of(nce, scores)).item())
    assert loss.needs == {"student", "teacher", "positive"}
    assert str(loss) == "kl_div + 0.1 infonce"


def test_a_single_loss_keeps_its_own_sum_and_weight(randomly):
    scores = randomly()
    total, weight = parse("2 margin_mse", {}, opener)(scores)
    plain = opener("margin_mse")()(scores)
    assert total.item() == pytest.approx(2 * plain[0].item())
    assert weight == plain[1]


@pytest.mark.parametrize(
    ("text", "factors"),
    [
        ("kl_div", [1]),
        (" .5*kl_div+0.5 * ranknet ", [0.5, 0.5]),
        ("1e-3 kl_div + 2E+1 ranknet", [0.001, 20]),
        ("rerankdistill.losses.kl_div:Kind + ranknet", [1, 1]),
    ],
)
def test_ways_to_write_a_sum(text, factors):
    assert [term.factor for term in parse(text, {}, opener).terms] == pytest.approx(factors)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "+",
        "kl_div +",
        "kl_div ranknet",
        "kl_div - ranknet",
        "0.1",
        "-1 kl_div",
        "0 kl_div",
        "kl_div + kl_div",
        "1e999 kl_div",
    ],
)
def test_what_is_no_sum_of_losses_is_refused(text):
    with pytest.raises(CardError):
        parse(text, {}, opener)


def test_an_unknown_loss_says_which_was_meant():
    with pytest.raises(CardError, match="did you mean 'kl_div'"):
        parse("kl_dvi + 0.1 infonce", {}, opener)


def test_options_for_a_loss_that_is_not_there_are_not_dropped_silently():
    with pytest.raises(CardError, match="did you mean 'kl_div'"):
        parse("kl_div", {"kl_dib": {"tau_teacher": 2}}, opener)
    with pytest.raises(CardError, match="did you mean 'tau_teacher'"):
        parse("kl_div", {"kl_div": {"tau_techer": 2}}, opener)


def test_a_sum_eats_what_all_its_terms_eat():
    assert Scale.RANK in parse("ranknet + infonce", {}, opener).eats
    assert Scale.RANK not in parse("ranknet + 0.1 kl_div", {}, opener).eats
    assert parse("infonce", {}, opener).eats == frozenset()


def test_chunks_that_weigh_differently_do_not_bias_the_sum(randomly, mean_of):
    scores = randomly(b=4)
    scores.positive = torch.tensor([-1, 0, 1, -1])  # infonce weighs 1 and 1 of 1 and 3 queries
    loss = parse("margin_mse + 0.3 infonce", {}, opener)

    def rows(part):
        return Scores(scores.student[part], teacher=scores.teacher[part], positive=scores.positive[part])

    chunks = [loss.parts(rows(slice(0, 2))), loss.parts(rows(slice(2, 4)))]
    whole = mean_of(loss, scores)
    assert Weighted.reduce(chunks).item() == pytest.approx(whole.item())
    (one,) = torch.autograd.grad(Weighted.reduce(chunks), scores.student, retain_graph=True)
    (other,) = torch.autograd.grad(whole, scores.student)
    assert torch.allclose(one, other)


def test_a_term_that_finds_nothing_adds_zero_and_nothing_at_all_weighs_nothing(randomly, mean_of):
    scores = randomly()
    loss = parse("kl_div + infonce", {}, opener)
    scores.positive = torch.full((3,), -1)
    assert mean_of(loss, scores).item() == pytest.approx(mean_of(opener("kl_div")(), scores).item())
    scores.valid = torch.zeros_like(scores.student, dtype=torch.bool)
    total, weight = loss(scores)
    assert total.item() == weight.item() == 0
