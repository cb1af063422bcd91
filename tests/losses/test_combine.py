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


# Options that change in the course of a training


def taus(loss, *shares):
    return [loss.at(share).terms[0].loss.options.tau_teacher for share in shares]


def test_a_ramp_goes_from_its_first_value_to_its_last():
    ramp = {"kl_div": {"tau_teacher": {"from": 2.0, "to": 0.5}, "tau_student": 0.1}}
    loss = parse("kl_div + 0.1 infonce", ramp, opener)
    assert taus(loss, 0, 0.5, 1) == pytest.approx([2, 1.25, 0.5])
    assert taus(loss, -1, 2) == pytest.approx([2, 0.5]), "never beyond its ends"
    assert loss.at(0.5).terms[0].loss.options.tau_student == 0.1
    assert str(loss.at(0.5)) == str(loss)
    slow = parse("kl_div", {"kl_div": {"tau_teacher": {"from": 2, "to": 0.5, "shape": "cosine"}}}, opener)
    assert taus(slow, 0, 0.25, 0.5, 1) == pytest.approx([2, 2 - 1.5 * (1 - 0.5**0.5) / 2, 1.25, 0.5])


def test_the_loss_of_a_moment_is_the_loss_with_the_value_of_that_moment(randomly, mean_of):
    scores = randomly()
    loss = parse("taid", {"taid": {"share": {"from": 0.2, "to": 1.0}}}, opener)
    for share_done, share in ((0, 0.2), (0.5, 0.6), (1, 1.0)):
        expected = mean_of(opener("taid")(share=share), scores)
        assert mean_of(loss.at(share_done), scores).item() == pytest.approx(expected.item())
    assert mean_of(loss, scores).item() == pytest.approx(mean_of(loss.at(0), scores).item())
    still = parse("taid", {}, opener)
    assert still.at(0.7) is still


def test_a_whole_number_stays_whole_on_its_way():
    loss = parse("list_mle", {"list_mle": {"top_k": {"from": 1, "to": 4}}}, opener)
    assert [loss.at(share).terms[0].loss.options.top_k for share in (0, 0.3, 0.37, 0.9, 1)] == [1, 2, 2, 4, 4]


def test_what_a_loss_needs_and_eats_holds_for_the_whole_training():
    loss = parse("kl_div", {"kl_div": {"alpha": {"from": 0.0, "to": 0.5}}}, opener)
    assert "label" in loss.needs
    assert "label" not in loss.at(0).needs


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"tau_teacher": {"from": 0, "to": 1}}, "tau_teacher: where the ramp begins"),
        ({"tau_teacher": {"from": 1, "to": -1}}, "tau_teacher: where the ramp ends"),
        ({"tau_teacher": {"from": 1}}, "tau_teacher: 1 mistake\n  - to: missing"),
        ({"tau_teacher": {"to": 1}}, "tau_teacher: 1 mistake\n  - from: missing"),
        ({"tau_teacher": {"from": "high", "to": 1}}, "tau_teacher: 1 mistake\n  - from"),
        ({"tau_teacher": {"from": True, "to": 1}}, "tau_teacher: 1 mistake\n  - from"),
        ({"tau_teacher": {"from": 1, "to": 2, "shape": "step"}}, "tau_teacher: 1 mistake\n  - shape"),
        ({"tau_teacher": {"from": 1, "to": 2, "shap": "linear"}}, "did you mean 'shape'"),
        ({"tau_techer": {"from": 1, "to": 2}}, "did you mean 'tau_teacher'"),
        ({"over": {"from": 1, "to": 2}}, "options.over"),
    ],
)
def test_a_ramp_that_is_none_is_refused_before_anything_runs_and_the_option_is_named(options, said):
    with pytest.raises(CardError) as error:
        parse("infonce + kl_div", {"kl_div": options}, opener)
    assert said in str(error.value)
    assert "kl_div" in str(error.value)


def test_a_switch_is_no_number():
    for name, kind in (("fit", "margin_mse"), ("symmetric", "infonce")):
        with pytest.raises(CardError, match=f"{name}: a ramp, and the option is no number"):
            parse(kind, {kind: {name: {"from": 0, "to": 1}}}, opener)
