"""The training loop: it learns, resumes, keeps the best step, and stops with a word where it cannot go on."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from tiny_lessons import LESSONS, lists

from rerankdistill.errors import DataError
from rerankdistill.kinds import open_kind
from rerankdistill.losses.combine import parse
from rerankdistill.students.data import Representations
from rerankdistill.students.kinds.bi_encoder import BiEncoderOptions
from rerankdistill.students.kinds.bi_encoder import Kind as BiEncoder
from rerankdistill.students.kinds.cross_encoder import CrossEncoderOptions
from rerankdistill.students.kinds.cross_encoder import Kind as CrossEncoder
from rerankdistill.students.train import StageOptions, last_checkpoint, loss_curve, train

KL = {"kl_div": {"tau_student": 0.1}}


def loss_of(text="kl_div", options=None):
    return parse(text, KL if options is None else options, lambda name: open_kind("losses", name))


def bi(tiny):
    torch.manual_seed(1)
    return BiEncoder.create(BiEncoderOptions(init=str(tiny)), "cpu")


def options(**changes):
    return StageOptions(**{"steps": 12, "batch": 4, "learning_rate": 2e-3, "token_budget": 4096, **changes})


def weights(student):
    return {name: value.detach().clone() for name, value in student.network.state_dict().items()}


def assert_same(one, other, atol=1e-6):
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], atol=atol, rtol=0, msg=name)


class Figures:
    """A dev evaluation that gives these figures in turn, and remembers the weights it saw."""

    measure = "made up"

    def __init__(self, *figures):
        self.figures, self.seen = figures, []

    def __call__(self, student):
        assert not student.network.training, "dev is measured with dropout on"
        self.seen.append(weights(student))
        return self.figures[len(self.seen) - 1]


@pytest.mark.parametrize("layout", ["batch", "lists"])
def test_the_loss_goes_down(tiny, tiny_ce, tmp_path, layout):
    cross = CrossEncoderOptions(init=str(tiny_ce))
    student = bi(tiny) if layout == "batch" else CrossEncoder.create(cross, "cpu")
    before = weights(student)
    loss = loss_of() if layout == "batch" else loss_of(options={})
    result = train(student, lists(layout), loss, options(steps=40, batch=8), tmp_path, 1)
    curve = [value for _, value in loss_curve(result.history)]
    assert result.steps == 40
    assert np.mean(curve[-8:]) < 0.7 * np.mean(curve[:8]), curve
    assert any(not torch.equal(value, before[name]) for name, value in weights(student).items())
    assert not student.network.training, "a student is handed back ready for use"


def test_vectors_are_learnt_too(tiny, tmp_path):
    texts = [example.query for example in LESSONS]
    targets = np.random.default_rng(1).normal(size=(len(texts), 16)).astype(np.float32)
    loss = loss_of("similarity_mse", {})
    result = train(bi(tiny), Representations(texts, targets), loss, options(steps=40, batch=8), tmp_path, 1)
    curve = [value for _, value in loss_curve(result.history)]
    assert np.mean(curve[-8:]) < 0.8 * np.mean(curve[:8])


def trained(tiny, folder, seed=1, **changes):
    student = bi(tiny)
    result = train(student, lists(changes.pop("layout", "batch")), loss_of(), options(**changes), folder, seed)
    return weights(student), loss_curve(result.history)


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(tiny, tmp_path):
    one, curve = trained(tiny, tmp_path / "a")
    two, again = trained(tiny, tmp_path / "b")
    other, _ = trained(tiny, tmp_path / "c", seed=2)
    assert curve == again
    assert_same(one, two, atol=0)
    assert any(not torch.equal(value, other[name]) for name, value in one.items())


def test_the_token_budget_bounds_memory_and_changes_no_result(tiny, tmp_path):
    one, curve = trained(tiny, tmp_path / "a", token_budget=10**6)
    two, again = trained(tiny, tmp_path / "b", token_budget=32)
    np.testing.assert_allclose([value for _, value in curve], [value for _, value in again], atol=1e-5)
    assert_same(one, two, atol=2e-4)  # Adam divides by tiny second moments, which magnifies a last bit


def test_accumulated_steps_are_the_steps_of_a_larger_batch(tiny_ce, tmp_path):
    found = []
    for name, batch, accumulate in (("a", 8, 1), ("b", 4, 2)):
        student = CrossEncoder.create(CrossEncoderOptions(init=str(tiny_ce)), "cpu")
        changes = options(steps=6, batch=batch, accumulate=accumulate, learning_rate=1e-4)
        result = train(student, lists("lists"), loss_of(), changes, tmp_path / name, 1)
        found.append([value for _, value in loss_curve(result.history)])
    np.testing.assert_allclose(found[0], found[1], rtol=1e-4)


@pytest.mark.parametrize(("keep_best", "wanted"), [(True, 1), (False, 3)])
def test_the_weights_of_the_best_dev_evaluation_are_kept(tiny, tmp_path, keep_best, wanted):
    student, dev = bi(tiny), Figures(0.2, 0.9, 0.5, 0.6)
    changes = options(evaluate_every=3, keep_best=keep_best)
    result = train(student, lists(), loss_of(), changes, tmp_path, 1, dev)
    assert len(dev.seen) == 4
    assert result.best == 0.9
    assert result.steps == 12
    assert_same(weights(student), dev.seen[wanted], atol=0)


def test_of_equal_dev_figures_the_earlier_step_is_kept(tiny, tmp_path):
    student, dev = bi(tiny), Figures(0.2, 0.9, 0.9, 0.9)
    train(student, lists(), loss_of(), options(evaluate_every=3), tmp_path, 1, dev)
    assert_same(weights(student), dev.seen[1], atol=0)


def test_patience_ends_a_training_that_no_longer_gains(tiny, tmp_path):
    student, dev = bi(tiny), Figures(0.2, 0.9, 0.5, 0.6, 1.0, 1.0)
    result = train(student, lists(), loss_of(), options(steps=18, evaluate_every=3, patience=2), tmp_path, 1, dev)
    assert result.steps == 12
    assert result.best == 0.9
    assert_same(weights(student), dev.seen[1], atol=0)


def test_the_last_steps_are_measured_though_they_fill_no_interval(tiny, tmp_path):
    student, dev = bi(tiny), Figures(0.2, 0.3, 0.9)
    result = train(student, lists(), loss_of(), options(steps=12, evaluate_every=5), tmp_path, 1, dev)
    assert result.best == 0.9
    assert_same(weights(student), dev.seen[2], atol=0)


def test_progress_is_told_after_every_step(tiny, tmp_path):
    told = []
    train(bi(tiny), lists(), loss_of(), options(steps=4), tmp_path, 1, report=lambda *a: told.append(a[:2]))
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]


class Broken:
    """A loss that is fine for a while."""

    needs = frozenset({"student"})
    eats = frozenset()
    calls = 0

    def __call__(self, scores):
        self.calls += 1
        value = scores.student.sum() * (float("nan") if self.calls > 2 else 1.0)
        return value, torch.tensor(1.0)


def test_a_loss_that_is_not_a_number_ends_the_training_with_a_word(tiny, tmp_path):
    with pytest.raises(DataError, match="the loss is nan at step 2"):
        train(bi(tiny), lists(), Broken(), options(), tmp_path, 1)


def test_nothing_to_learn_from_is_said_before_a_model_is_touched(tmp_path):
    with pytest.raises(DataError, match="no example"):
        train(object(), lists(examples=[]), loss_of(), options(), tmp_path, 1)


def test_a_torn_checkpoint_is_passed_over_and_the_end_is_the_same(tiny, tmp_path):
    changes = {"steps": 12, "evaluate_every": 3}
    wanted, curve = trained(tiny, tmp_path / "whole", **changes)
    trained(tiny, tmp_path / "torn", **changes)
    newest, older = tmp_path / "torn/checkpoint-12", tmp_path / "torn/checkpoint-9"
    state = newest / "trainer_state.json"
    assert last_checkpoint(tmp_path / "torn") == newest
    state.write_text(state.read_text()[:40])  # killed while the last file was written
    (newest / "optimizer.pt").unlink()
    assert last_checkpoint(tmp_path / "torn") == older
    again, resumed = trained(tiny, tmp_path / "torn", **changes)
    assert_same(wanted, again, atol=0)
    assert resumed == curve
    assert json.loads(state.read_text())["global_step"] == 12, "the torn checkpoint was not written again"


def test_a_folder_of_torn_checkpoints_is_a_fresh_start(tiny, tmp_path):
    wanted, curve = trained(tiny, tmp_path / "whole", steps=4)
    shutil.copytree(tmp_path / "whole", tmp_path / "torn")
    for state in (tmp_path / "torn").glob("*/trainer_state.json"):
        state.unlink()
    assert last_checkpoint(tmp_path / "torn") is None
    again, resumed = trained(tiny, tmp_path / "torn", steps=4)
    assert_same(wanted, again, atol=0)
    assert resumed == curve


@pytest.mark.parametrize(("steps", "every"), [(200, 0), (100, 7), (60, 0), (1000, 0)])
def test_a_resumed_loss_curve_has_the_points_of_an_undisturbed_one(tmp_path, steps, every):
    """A mean that spans a checkpoint would start anew after a kill."""
    from rerankdistill.students.train import _arguments

    found = _arguments(StageOptions(steps=steps, evaluate_every=every), tmp_path, 1, "cpu", True)
    assert found.save_steps % found.logging_steps == 0


def test_what_is_compiled_is_trained_alike_and_left_as_it_was(tiny, tmp_path, monkeypatch):
    """A model whose call goes past what was compiled would train as slowly as ever, and nobody would notice."""
    calls = []

    def compile_(forward, dynamic):
        assert dynamic, "every length of texts would be compiled anew"
        return lambda *inputs, **named: calls.append(1) or forward(*inputs, **named)

    monkeypatch.setattr(torch, "compile", compile_)
    wanted, _ = trained(tiny, tmp_path / "plain", steps=4)
    assert not calls
    student = bi(tiny)
    train(student, lists(), loss_of(), options(steps=4, compile=True), tmp_path / "compiled", 1)
    assert len(calls) == 8, "queries and documents of each step"
    assert_same(wanted, weights(student), atol=0)
    student.network.train()
    student.encoder().encode(["the mill of arden"], "doc")
    assert len(calls) == 8


@pytest.mark.slow
def test_the_compiler_itself_changes_no_more_than_the_last_digits(tiny, tmp_path):
    _, wanted = trained(tiny, tmp_path / "plain", steps=4)
    _, found = trained(tiny, tmp_path / "compiled", steps=4, compile=True)
    np.testing.assert_allclose([value for _, value in found], [value for _, value in wanted], rtol=1e-3)
