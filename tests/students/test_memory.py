"""Lists that do not fit: every chunk is encoded again for its gradient, which is that of the whole batch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_lessons import LESSONS, read

from rerankdistill.kinds import open_kind
from rerankdistill.losses.combine import parse
from rerankdistill.students.batch import Budget, list_batch
from rerankdistill.students.kinds.bi_encoder import BiEncoderOptions
from rerankdistill.students.kinds.bi_encoder import Kind as BiEncoder
from rerankdistill.students.kinds.cross_encoder import CrossEncoderOptions
from rerankdistill.students.kinds.cross_encoder import Kind as CrossEncoder
from rerankdistill.students.train import StageOptions, step_loss

WHOLE, CACHED = Budget(10**6, 10**6), Budget(40, 0)
OPTIONS = {"kl_div": {"tau_student": 0.1}, "infonce": {"tau": 0.05}}


def loss_of(name):
    options = {name: OPTIONS[name]} if name in OPTIONS else {}
    return parse(name, options, lambda found: open_kind("losses", found))


def student_of(layout, tiny, tiny_ce, dropout=0.0):
    if layout == "batch":
        student = BiEncoder.create(BiEncoderOptions(init=str(tiny), dropout=dropout), "cpu")
    else:
        student = CrossEncoder.create(CrossEncoderOptions(init=str(tiny_ce), dropout=dropout), "cpu")
    student.network.double()
    student.ready(training=True)
    return student


def gradients(student, loss, batch, budget):
    student.network.zero_grad()
    torch.manual_seed(3)
    value = step_loss(student, loss_of(loss), batch, budget)
    value.backward()
    named = student.network.named_parameters()
    return value.item(), {name: p.grad.clone() for name, p in named if p.grad is not None}


@pytest.mark.parametrize("loss", ["infonce", "kl_div", "margin_mse"])
@pytest.mark.parametrize("layout", ["batch", "lists"])
def test_its_gradients_are_those_of_the_whole_batch(tiny, tiny_ce, layout, loss):
    student = student_of(layout, tiny, tiny_ce)
    batch = list_batch(LESSONS[:4], read, layout)
    value, wanted = gradients(student, loss, batch, WHOLE)
    again, found = gradients(student, loss, batch, CACHED)
    assert again == pytest.approx(value, rel=1e-9)
    assert found.keys() == wanted.keys()
    for name, grad in wanted.items():
        torch.testing.assert_close(found[name], grad, rtol=1e-6, atol=1e-12, msg=name)


def test_what_is_encoded_again_sees_the_same_dropout(tiny, tiny_ce):
    """Another noise the second time would be a gradient of something that nobody computed."""
    student = student_of("batch", tiny, tiny_ce, dropout=0.3)
    batch = list_batch(LESSONS[:4], read, "batch")
    value, wanted = gradients(student, "kl_div", batch, Budget(40, 10**6))
    again, found = gradients(student, "kl_div", batch, CACHED)
    assert again == value
    for name, grad in wanted.items():
        torch.testing.assert_close(found[name], grad, rtol=1e-9, atol=1e-12, msg=name)


def kept(student, batch, budget):
    """Bytes that one step's forward keeps for its backward."""
    total = 0

    def count(tensor):
        nonlocal total
        total += tensor.numel() * tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        step_loss(student, loss_of("kl_div"), batch, budget)
    return total


@pytest.mark.parametrize("layout", ["batch", "lists"])
def test_what_a_step_keeps_does_not_grow_with_its_texts_length_times_layers(tiny, tiny_ce, layout):
    student = student_of(layout, tiny, tiny_ce)
    batch = list_batch(LESSONS, read, layout)
    assert kept(student, batch, CACHED) < 0.1 * kept(student, batch, WHOLE)


def test_what_a_chunk_leaves_behind_is_its_output_alone(tiny, tiny_ce):
    """sentence-transformers adds every token's vector to what it is given, and a checkpoint holds what it is given."""
    import gc

    student = student_of("batch", tiny, tiny_ce)
    batch = list_batch(LESSONS, read, "batch")
    gc.collect()
    before = {id(each) for each in gc.get_objects() if issubclass(type(each), torch.Tensor)}
    value = step_loss(student, loss_of("kl_div"), batch, CACHED)
    alive = [each for each in gc.get_objects() if issubclass(type(each), torch.Tensor) and id(each) not in before]
    assert not [each.shape for each in alive if each.dim() == 3]
    value.backward()


def test_two_processes_average_the_gradients_of_their_whole_batches(tiny):
    launch = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "29683"]
    command = [sys.executable, *launch, str(Path(__file__).with_name("cached_driver.py")), str(tiny)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    worst = json.loads(done.stdout.splitlines()[-1])
    assert {"infonce", "kl_div", "margin_mse"} <= worst.keys()
    assert max(worst.values()) < 1e-6, worst


def test_by_default_a_cpu_keeps_less_than_a_gpu_and_the_card_decides_over_both():
    assert StageOptions().budget("cpu").kept < StageOptions().budget("cuda:0").kept
    assert StageOptions(kept_tokens=7, token_budget=5).budget("cuda:0") == Budget(5, 7)


@pytest.mark.slow
@pytest.mark.model
def test_lists_of_a_hundred_documents_train_in_three_gigabytes():
    program = Path(__file__).parents[2] / "scripts" / "bench_memory.py"
    command = [sys.executable, str(program), "--sizes", "25", "100", "--only", "ours"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=500)
    grown = {int(size): float(gib) for _, size, gib, *_ in (line.split() for line in done.stdout.splitlines()[1:])}
    assert grown[100] < 3.0, done.stdout
    assert grown[100] < 4 * max(grown[25], 0.5), done.stdout
