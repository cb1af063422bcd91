"""Scores by layer: the last layer's is the model's own, and a step that is repeated draws the same layers."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from tiny_lessons import DOCS, LESSONS, lists, read
from torch.nn.functional import log_softmax

from rerankdistill import devices
from rerankdistill.contracts import Reading
from rerankdistill.encoding import load_bi_encoder
from rerankdistill.losses.combine import Term, Weighted
from rerankdistill.students.batch import Budget, list_batch
from rerankdistill.students.kinds.bi_encoder import BiEncoderOptions, Kind
from rerankdistill.students.layer_scores import LayerLessons, LayerTeacher, drawn
from rerankdistill.students.train import StageOptions, loss_curve, train
from rerankdistill.types import Scale

BUDGET = Budget(8192, 100_000)


class Alignment:
    """A plain sum over layers, so that this test hangs on no loss's own options."""

    needs: frozenset[str] = frozenset({"layers"})
    eats: frozenset[Scale] = frozenset()

    def __call__(self, scores):
        target = (10 * scores.layers.teacher).softmax(-1)
        return -(target * log_softmax(10 * scores.layers.student, -1)).sum(), scores.student.new_tensor(
            float(scores.layers.student.shape[1])
        )


LOSS = Weighted([Term(1.0, "alignment", Alignment())])


def bi(tiny, **options):
    torch.manual_seed(1)
    return Kind.create(BiEncoderOptions(init=str(tiny), **options), "cpu")


def teacher(tiny):
    return LayerTeacher(load_bi_encoder(str(tiny)), devices.choose("cpu"), {"query": 64, "doc": 64})


def lessons(tiny, pairs=2, seed=1):
    made = teacher(tiny)
    return LayerLessons(lambda _, queries, docs: made.scores(queries, docs), pairs, seed)


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_the_last_layer_is_the_students_own_score_and_one_pass_gives_all(tiny, similarity):
    student, batch = bi(tiny, similarity=similarity), list_batch(LESSONS[:3], read, "batch")
    (plain,) = student.read(batch, BUDGET, frozenset())
    calls = []
    student.network[0].model.register_forward_hook(lambda *_: calls.append(1))
    (layered,) = student.read(batch, BUDGET, frozenset({"layers"}))
    assert len(calls) == 2, "queries once, documents once"
    assert plain.layers is None
    assert layered.layers.shape == (3, *plain.scores.shape)
    torch.testing.assert_close(layered.layers[-1], plain.scores, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(layered.scores, plain.scores, atol=1e-5, rtol=1e-5)
    part = bi(tiny, similarity=similarity, layers=[0, 1])
    (shorter,) = part.read(batch, BUDGET, frozenset())
    torch.testing.assert_close(layered.layers[1], shorter.scores, atol=1e-4, rtol=1e-4)


def test_a_student_that_is_read_in_several_ways_gives_its_layers_in_each(tiny):
    batch = list_batch(LESSONS[:3], read, "batch")
    found = bi(tiny, dims=[32, 8]).read(batch, BUDGET, frozenset({"layers"}))
    assert len(found) > 1
    assert all(each.layers.shape == (3, *each.scores.shape) for each in found)


def test_a_teacher_says_of_a_layer_what_a_student_made_of_it_would_also_when_it_remembers(tiny):
    made, batch = teacher(tiny), list_batch(LESSONS[:3], read, "batch")
    (layered,) = bi(tiny).read(batch, BUDGET, frozenset({"layers"}))
    first = made.scores(batch.queries, batch.docs)
    np.testing.assert_allclose(first, layered.layers.detach().numpy(), atol=1e-5)
    calls = []
    made.encoder.model[0].model.register_forward_hook(lambda *_: calls.append(1))
    np.testing.assert_array_equal(made.scores(batch.queries, batch.docs), first)
    assert not calls
    assert made.scores(batch.queries[:1], list(DOCS.values())[-1:]).shape == (3, 1, 1)


def test_what_was_drawn_is_in_order_and_as_many_on_both_sides():
    student, other = torch.arange(3.0)[:, None, None], torch.arange(12.0)[:, None, None]
    met = set()
    for chance in range(40):
        mine, theirs = drawn(student, other, 2, chance)
        assert len(mine) == len(theirs) == 2
        for part in (mine, theirs):
            assert (part[1:] > part[:-1]).all(), "a low layer was put beside a high one"
        met.add((*mine.ravel().tolist(), *theirs.ravel().tolist()))
        assert torch.equal(drawn(student, other, 2, chance)[1], theirs)
    assert len(met) > 20
    assert len(drawn(student, other, 9, 0)[1]) == 3


@pytest.mark.parametrize("layout", ["batch", "lists"])
def test_a_cell_of_a_layer_is_about_its_own_document(tiny, layout):
    inside = lessons(tiny, pairs=9)
    batch, made = list_batch(LESSONS[:3], read, layout, None, inside), teacher(tiny)
    for row, query in enumerate(batch.queries):
        for column in torch.nonzero(batch.valid[row]).ravel().tolist():
            alone = made.scores([query], [batch.docs[batch.columns[row, column]]])
            np.testing.assert_allclose(batch.layers[:, row, column], alone[:, 0, 0], atol=1e-5)
    reading = Reading(torch.zeros(batch.valid.shape), layers=torch.zeros(2, *batch.valid.shape))
    assert batch.scores(reading).layers.teacher.shape[0] == 2


def test_every_step_draws_anew_and_a_seed_draws_the_same(tiny):
    plain = LayerLessons(lambda *_: np.empty(0), 2, 1)
    draws = {plain.draw([f"q{at}", "q9"])[1] for at in range(20)}
    assert len(draws) == 20
    assert plain.draw(["a", "b"]) == LayerLessons(lambda *_: np.empty(0), 2, 1).draw(["a", "b"])
    assert plain.draw(["a", "b"]) != LayerLessons(lambda *_: np.empty(0), 2, 2).draw(["a", "b"])


def test_layers_are_learnt_and_a_training_that_was_cut_goes_on_as_if_it_had_not_been(tiny, tmp_path):
    def run(folder, steps=24):
        student, plain = bi(tiny, layers=1), lists()
        with torch.no_grad():
            for each in student.network.parameters():
                each.add_(torch.randn(each.shape, generator=torch.Generator().manual_seed(3)) * 0.05)
        data = type(plain)(plain.examples, plain.pick, plain.texts, plain.layout, None, lessons(tiny))
        settings = StageOptions(steps=steps, batch=6, learning_rate=3e-3, evaluate_every=12)
        return loss_curve(train(student, data, LOSS, settings, folder, 1).history)

    curve = run(tmp_path / "whole")
    values = [value for _, value in curve]
    assert np.mean(values[-8:]) < np.mean(values[:4])
    shutil.copytree(tmp_path / "whole" / "checkpoint-12", tmp_path / "cut" / "checkpoint-12")
    assert run(tmp_path / "cut") == curve
