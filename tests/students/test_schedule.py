"""A loss that changes in the course of a training hears where the training is, after a resume too."""

from __future__ import annotations

import pytest
import torch
from tiny_lessons import lists

from rerankdistill.kinds import open_kind
from rerankdistill.losses.combine import Pace, parse
from rerankdistill.students.kinds.bi_encoder import BiEncoderOptions
from rerankdistill.students.kinds.bi_encoder import Kind as BiEncoder
from rerankdistill.students.train import StageOptions, loss_curve, train

RAMP = {"kl_div": {"tau_student": 0.1, "tau_teacher": {"from": 2.0, "to": 0.5}}}


def loss_of(options, pace=None):
    return parse("kl_div", options, lambda name: open_kind("losses", name), pace)


class Listening:
    """A loss that remembers the moments it was asked for."""

    def __init__(self, loss):
        self.loss, self.needs, self.eats, self.heard = loss, loss.needs, loss.eats, []

    def at(self, share_done):
        self.heard.append(share_done)
        return self.loss.at(share_done)


class Cut(Exception):
    pass


def run(tiny, folder, loss, until=None, **changes):
    torch.manual_seed(1)
    student = BiEncoder.create(BiEncoderOptions(init=str(tiny)), "cpu")
    options = {"steps": 8, "batch": 4, "learning_rate": 2e-3, "token_budget": 4096, "evaluate_every": 2, **changes}

    def report(step, *_):
        if step == until:
            raise Cut

    result = train(student, lists(), loss, StageOptions(**options), folder, 1, None, report)
    weights = {name: value.detach().clone() for name, value in student.network.state_dict().items()}
    return weights, loss_curve(result.history)


def test_a_resumed_training_is_where_it_was_and_not_at_the_start_of_its_ramps(tiny, tmp_path):
    whole, cut = Listening(loss_of(RAMP)), Listening(loss_of(RAMP))
    weights, curve = run(tiny, tmp_path / "whole", whole)
    assert whole.heard == pytest.approx([step / 8 for step in range(8)])
    with pytest.raises(Cut):
        run(tiny, tmp_path / "cut", cut, until=5)
    first = len(cut.heard)
    resumed, again = run(tiny, tmp_path / "cut", cut)
    assert cut.heard[first:] == pytest.approx([step / 8 for step in range(4, 8)])
    assert dict(again) == pytest.approx(dict(curve))
    for name, value in weights.items():
        torch.testing.assert_close(resumed[name], value, atol=1e-6, rtol=0, msg=name)


def test_micro_batches_of_one_step_are_at_one_moment(tiny, tmp_path):
    loss = Listening(loss_of(RAMP))
    run(tiny, tmp_path, loss, steps=3, accumulate=2)
    assert loss.heard == pytest.approx([0, 0, 1 / 3, 1 / 3, 2 / 3, 2 / 3])


def test_a_ramp_teaches_something_else_than_either_of_its_ends(tiny, tmp_path):
    ends = [{"kl_div": {"tau_student": 0.1, "tau_teacher": tau}} for tau in (2.0, 0.5)]
    curves = [run(tiny, tmp_path / str(at), loss_of(options), steps=4)[1] for at, options in enumerate([RAMP, *ends])]
    assert curves[0][0] == pytest.approx(curves[1][0]), "it begins where the ramp does"
    assert curves[0][-1] != pytest.approx(curves[1][-1])
    assert curves[0][-1] != pytest.approx(curves[2][-1])


@pytest.mark.filterwarnings("ignore:a batch taught nothing")
def test_a_paced_training_learns_until_nothing_is_left_that_it_has_not_solved(tiny, tmp_path):
    loss = loss_of({"kl_div": {"tau_student": 0.1}}, Pace(a=0.0))
    weights, curve = run(tiny, tmp_path, loss, steps=24, batch=8)
    values = [value for _, value in curve]
    assert sum(values[-6:]) < 0.9 * sum(values[:6]), curve
    assert all(torch.isfinite(value).all() for value in weights.values() if value.is_floating_point())
