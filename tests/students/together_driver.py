"""Two processes and one batch: ``torchrun … together_driver.py MODEL FOLDER``. Rank 0 prints, as JSON, how far loss and
gradient of each case are from those of one process that reads the whole batch alone, relative to the largest gradient,
and how far a training's weights are.

The gradients are averaged by DistributedDataParallel, as in training.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import torch
from tiny_lessons import LESSONS, lists, read
from torch.nn.parallel import DistributedDataParallel

from rerankdistill import devices
from rerankdistill.kinds import open_kind
from rerankdistill.losses.combine import parse
from rerankdistill.students import together
from rerankdistill.students import train as training
from rerankdistill.students.batch import Budget, list_batch
from rerankdistill.students.kinds.bi_encoder import BiEncoderOptions, Kind
from rerankdistill.students.train import StageOptions, step_loss

devices.fast_bfloat16 = lambda _: False  # a processor that has it would blur what is held to 1e-6
OPTIONS = {"kl_div": {"tau_student": 0.1}, "infonce": {"tau": 0.05}}
LOSSES = ("infonce", "kl_div", "kl_div + 0.5 infonce")
BUDGETS = {"": Budget(10**6, 10**6), " twice": Budget(40, 0)}
WAYS = {"dims": (32, 8), "exits": (1,)}


def loss_of(text):
    return parse(
        text, {name: OPTIONS[name] for name in OPTIONS if name in text}, lambda name: open_kind("losses", name)
    )


def student_of(model, **options):
    torch.manual_seed(1)
    return Kind.create(BiEncoderOptions(init=model, **options), "cpu")


class Step(torch.nn.Module):
    def __init__(self, student):
        super().__init__()
        self.network, self.student = student.network, student

    def forward(self, loss, batch, budget):
        value = step_loss(self.student, loss, batch, budget)
        return together.grown(value, together.processes()) if self.student.together else value


def gradient(module):
    return torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None])


def steps(model, examples, mine, gather):
    """Loss and gradient of the two processes, and of one with all of ``examples``."""
    student = student_of(model, **WAYS)
    student.network.double()
    student.ready(training=True)
    wrapped = DistributedDataParallel(Step(student), find_unused_parameters=True)
    whole, part = list_batch(examples, read, "batch"), list_batch(mine, read, "batch")
    found = {}
    for text in LOSSES if gather else LOSSES[:1]:
        for name, budget in BUDGETS.items():
            student.together = gather
            wrapped.zero_grad()
            value = wrapped(loss_of(text), whole if gather else part, budget)
            value.backward()
            found[text + name] = (value.detach(), gradient(wrapped).clone())
    return student, found


def alone(student, text, batches):
    """What one process would compute: the mean over everything in these batches."""
    count = together.processes
    together.processes = training.processes = lambda: 1
    student.together = False
    student.network.zero_grad()
    loss = loss_of(text)
    if len(batches) == 1:
        value = step_loss(student, loss, batches[0], BUDGETS[""])
    else:  # of what each process has by itself: sums over weights, way by way
        readings = [student.read(batch, BUDGETS[""], loss.needs) for batch in batches]
        value = 0.0
        for same in zip(*readings, strict=True):
            pairs = [loss(batch.scores(reading)) for batch, reading in zip(batches, same, strict=True)]
            value = value + same[0].weight * sum(total for total, _ in pairs) / sum(weight for _, weight in pairs)
    value.backward()
    together.processes = training.processes = count
    return value.detach(), gradient(student.network)


def apart(found, wanted):
    return [float((one - other).abs().max() / other.abs().max()) for one, other in zip(found, wanted, strict=True)]


def weights(student):
    return torch.cat([value.flatten() for value in student.network.state_dict().values() if value.is_floating_point()])


def trained(model, folder, batch, **options):
    student = student_of(model)
    student.network.double()
    stage = StageOptions(steps=6, batch=batch, learning_rate=1e-3, evaluate_every=100, **options)
    result = training.train(student, lists(), loss_of("infonce"), stage, folder, 1)
    return student, [entry["loss"] for entry in result.history]


def main(model: str, folder: Path) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    rank = torch.distributed.get_rank()
    report = {}
    examples = LESSONS[:7]  # not the same for both, and documents that both have
    mine = examples[:4] if rank == 0 else examples[4:]
    student, found = steps(model, examples, mine, gather=True)
    for name, values in found.items():
        text = name.removesuffix(" twice")
        report[f"gather {name}"] = apart(values, alone(student, text, [list_batch(examples, read, "batch")]))
    student, found = steps(model, examples, mine, gather=False)
    each = [list_batch(part, read, "batch") for part in (examples[:4], examples[4:])]
    for name, values in found.items():
        value = values[0] / 2
        torch.distributed.all_reduce(value)
        wanted = alone(student, name.removesuffix(" twice"), each)
        report[f"apart {name}"] = apart((value, values[1]), wanted)
    both, history = trained(model, folder / "both", 4)
    report["history"] = history
    report["weights"] = weights(both).double().tolist()[:2000]
    if rank == 0:
        json.dump(report, sys.stdout)
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    if "RANK" in os.environ:
        main(sys.argv[1], Path(sys.argv[2]))
    else:
        torch.set_num_threads(1)
        student, history = trained(sys.argv[1], Path(sys.argv[2]) / "one", 8)
        json.dump({"history": history, "weights": weights(student).double().tolist()[:2000]}, sys.stdout)
