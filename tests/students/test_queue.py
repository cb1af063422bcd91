"""Texts met before are others to tell a text from, and a training that was cut has met the same ones."""

from __future__ import annotations

import numpy as np
import torch
from tiny_lessons import DOCS

from rerankdistill.kinds import open_kind
from rerankdistill.losses.combine import parse
from rerankdistill.students.batch import Budget
from rerankdistill.students.data import Representations, Schedule
from rerankdistill.students.kinds.bi_encoder import BiEncoderOptions, Kind
from rerankdistill.students.train import StageOptions, step_loss, train

TEXTS = list(DOCS.values())
TARGETS = np.random.default_rng(3).normal(size=(len(TEXTS), 32)).astype(np.float32)
PLENTY = Budget(10**6, 10**6)


def made(tiny):
    torch.manual_seed(1)
    return Kind.create(BiEncoderOptions(init=str(tiny)), "cpu")


def loss():
    return parse("contrastive_kd", {}, lambda name: open_kind("losses", name))


def test_the_loss_of_a_step_counts_the_queue(tiny):
    student = made(tiny)
    losses = []
    for queue in (0, 12):
        data = Representations(TEXTS, TARGETS, queue=queue, seed=1)
        schedule = Schedule(data, 40, 1)
        batch = data.collate([schedule[at] for at in range(16, 20)])
        losses.append(float(step_loss(student, loss(), batch, PLENTY).detach()))
    assert losses[1] > losses[0] + 0.1, "more others, a harder choice"


def test_a_resumed_training_meets_the_same_queue(tiny, tmp_path):
    def final(folder, *, cut=False):
        student, options = made(tiny), StageOptions(steps=12, batch=4, learning_rate=1e-3)
        if cut:
            (folder / "checkpoint-12").rename(folder / "gone")
        train(student, Representations(TEXTS, TARGETS, queue=10, seed=1), loss(), options, folder, 1)
        return [weight.detach().clone() for weight in student.network.parameters()]

    whole = final(tmp_path)
    resumed = final(tmp_path, cut=True)
    for one, other in zip(whole, resumed, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=0)
