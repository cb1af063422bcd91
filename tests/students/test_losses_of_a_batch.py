"""What a student and a step's batch bring is what the losses ask for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_lessons import LESSONS, lists

from rerankdistill.kinds import names, open_kind
from rerankdistill.losses.combine import parse
from rerankdistill.students.batch import Budget
from rerankdistill.students.kinds.bi_encoder import BiEncoderOptions
from rerankdistill.students.kinds.bi_encoder import Kind as BiEncoder
from rerankdistill.students.train import step_loss

BROUGHT = {"student", "teacher", "label", "positive", "own", "docs", "preferences"}
LOSSES = {name: {} for name in names("losses") if open_kind("losses", name)().needs <= BROUGHT}
MORE = [
    ("infonce", {"symmetric": True}),
    *(("adaptive_margin", {"mode": mode}) for mode in ("paired", "in_batch_published", "distributed")),
    ("adaptive_margin", {"detach_target": False}),
]


@pytest.fixture(scope="module")
def student(tiny):
    torch.manual_seed(1)
    found = BiEncoder.create(BiEncoderOptions(init=str(tiny)), "cpu")
    found.ready(training=True)
    return found


@pytest.fixture(scope="module")
def batch():
    compared = []
    for lesson in LESSONS[:4]:
        said = 1 / (1 + np.exp(lesson.scores[None, :] - lesson.scores[:, None]))
        np.fill_diagonal(said, np.nan)
        compared.append(replace(lesson, preferences=said.astype(np.float32)))
    material = lists("batch", size=8, examples=compared)
    return material.collate([material.item(row, 0) for row in range(4)])


@pytest.mark.parametrize(("name", "options"), [*LOSSES.items(), *MORE])
def test_every_loss_of_ranked_lists_teaches_a_bi_encoder(name, options, student, batch):
    loss = parse(name, {name: options}, lambda each: open_kind("losses", each))
    student.network.zero_grad()
    value = step_loss(student, loss, batch, Budget(4096, 10**6))
    value.backward()
    slopes = [part.grad for part in student.network.parameters() if part.grad is not None]
    assert torch.isfinite(value)
    assert value > 0
    assert max(float(slope.abs().max()) for slope in slopes) > 0
    assert all(torch.isfinite(slope).all() for slope in slopes)
