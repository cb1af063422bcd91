"""Cores that work apart at one step: the same outputs and gradients as together, each time to the last bit."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from tiny_lessons import LESSONS, gradients, read
from tiny_models import tiny_mlm

from rerankdistill import devices, encoding
from rerankdistill.kinds import open_kind
from rerankdistill.losses.combine import parse
from rerankdistill.students import side_by_side
from rerankdistill.students.batch import Budget, list_batch
from rerankdistill.students.kinds import _network, bi_encoder, cross_encoder, late_interaction, sparse
from rerankdistill.students.side_by_side import cores_for

PLENTY = Budget(10**6, 10**6)
CORES = 3


@pytest.fixture
def apart(monkeypatch):
    """Three cores, and so few tokens for each batch that every core gets several; who worked is told. torch itself
    keeps to one: with matrices this small more get in each other's way."""
    seen: set[str] = set()
    monkeypatch.setattr(encoding, "FEW", 1)
    monkeypatch.setattr(encoding, "ENOUGH", 40)
    monkeypatch.setattr(_network, "FEWEST_APART", 1)
    plain = side_by_side.run_apart

    def run_apart(run, *rest):
        def noted(batch):
            seen.add(threading.current_thread().name)
            return run(batch)

        return plain(noted, *rest)

    monkeypatch.setattr(_network, "run_apart", run_apart)
    monkeypatch.setattr(devices, "threads", lambda: CORES)
    monkeypatch.setattr(devices, "take_threads", lambda count: None)
    return seen


def infonce(**options):
    return parse("infonce", {"infonce": options}, lambda name: open_kind("losses", name))


def student_of(kind, tiny, tiny_ce, tmp_path):
    torch.manual_seed(1)
    if kind is cross_encoder:
        return kind.Kind.create(kind.Kind.Options(init=str(tiny_ce)), "cpu"), "lists"
    if kind is sparse:
        model = tiny_mlm(tmp_path / "mlm", read([f"d{n}" for n in range(8)]))
        return kind.Kind.create(kind.Kind.Options(init=str(model)), "cpu"), "batch"
    return kind.Kind.create(kind.Kind.Options(init=str(tiny)), "cpu"), "batch"


@pytest.mark.parametrize("kept", [10**6, 0], ids=["kept", "computed twice"])
@pytest.mark.parametrize("kind", [bi_encoder, cross_encoder, late_interaction, sparse], ids=lambda kind: kind.__name__)
def test_loss_and_gradients_are_those_of_one_core(apart, kind, kept, tiny, tiny_ce, tmp_path, monkeypatch):
    student, layout = student_of(kind, tiny, tiny_ce, tmp_path)
    student.ready(training=True)
    student.network.double()  # held to more digits than the order of a sum costs
    batch, loss = list_batch(LESSONS[:5], read, layout), infonce(tau=0.3)
    budget = Budget(120, kept)
    found = gradients(student, loss, batch, budget)
    again = gradients(student, loss, batch, budget)
    assert len(apart) > 1
    assert not any(name.startswith("Main") for name in apart)
    monkeypatch.setattr(devices, "threads", lambda: 1)
    wanted = gradients(student, loss, batch, PLENTY)
    assert found[0] == pytest.approx(wanted[0], abs=1e-9)
    assert found[1].keys() == wanted[1].keys()
    for name, gradient in wanted[1].items():
        torch.testing.assert_close(found[1][name], gradient, atol=1e-9, rtol=1e-7)
        assert torch.equal(found[1][name], again[1][name]), "a training repeats itself"


def test_weights_that_stay_get_no_gradient(apart, tiny):
    student = bi_encoder.Kind.create(bi_encoder.BiEncoderOptions(init=str(tiny), freeze=1), "cpu")
    student.ready(training=True)
    _, found = gradients(student, infonce(), list_batch(LESSONS[:4], read, "batch"), PLENTY)
    assert apart
    learning = {name for name, weight in student.network.named_parameters() if weight.requires_grad}
    assert found.keys() <= learning
    assert not any("layer.0." in name for name in found)


@pytest.mark.parametrize(("dropout", "cores"), [(0.0, CORES), (0.1, 1)])
def test_who_draws_random_numbers_works_alone(apart, tiny, dropout, cores):
    student = bi_encoder.Kind.create(bi_encoder.BiEncoderOptions(init=str(tiny), dropout=dropout), "cpu")
    student.ready(training=True)
    weights = list(student.network.parameters())
    assert cores_for(student.network, weights, "cpu") == cores
    assert cores_for(student.network, weights, "cuda:0") == 1
    assert cores_for(student.network, [], "cpu") == 1
    with torch.no_grad():
        assert cores_for(student.network, weights, "cpu") == 1


def test_an_error_in_a_thread_is_the_callers(apart, tiny, monkeypatch):
    student = bi_encoder.Kind.create(bi_encoder.BiEncoderOptions(init=str(tiny)), "cpu")
    student.ready(training=True)

    def fail(features):
        raise ValueError("no room")

    monkeypatch.setattr(student, "_forward", fail)
    with pytest.raises(ValueError, match="no room"):
        gradients(student, infonce(), list_batch(LESSONS[:4], read, "batch"), PLENTY)


@pytest.mark.parametrize("kind", [bi_encoder, cross_encoder, late_interaction, sparse], ids=lambda kind: kind.__name__)
def test_what_it_says_in_use_is_what_it_says_with_one_core(apart, kind, tiny, tiny_ce, tmp_path, monkeypatch):
    student, _ = student_of(kind, tiny, tiny_ce, tmp_path)
    texts, told = read([f"d{n}" for n in range(8)]) * 3, list[int]()

    def said():
        if kind is cross_encoder:
            return student.score([(text, text[::-1]) for text in texts])
        encoder = student.encoder()
        docs = encoder.encode(texts, "doc", told.append)
        return encoder.similarity(encoder.encode(texts[:5], "query"), docs)

    found = said()
    if kind is not cross_encoder:
        assert sum(told) == len(texts)
        assert len(told) > CORES
    monkeypatch.setattr(devices, "threads", lambda: 1)
    np.testing.assert_allclose(found, said(), atol=1e-5)
