"""Gradients of two processes, kept whole and cached: ``torchrun … cached_driver.py MODEL``. Rank 0 prints the largest
relative difference of any parameter's gradient for each loss, as JSON.

Each process has its own queries; the gradients are averaged by DistributedDataParallel, as in training.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import torch
from tiny_lessons import LESSONS, read
from torch.nn.parallel import DistributedDataParallel

from rerankdistill.kinds import open_kind
from rerankdistill.losses.combine import parse
from rerankdistill.students.batch import Budget, list_batch
from rerankdistill.students.kinds.bi_encoder import BiEncoderOptions, Kind
from rerankdistill.students.train import step_loss

OPTIONS = {"kl_div": {"tau_student": 0.1}, "infonce": {"tau": 0.05}, "margin_mse": {}}


def main(model: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    rank = torch.distributed.get_rank()
    student = Kind.create(BiEncoderOptions(init=model), "cpu")
    student.network.double()
    student.ready(training=True)
    batch = list_batch(LESSONS[rank * 4 : rank * 4 + 4], read, "batch")

    class Step(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = student.network

        def forward(self, loss, budget):
            return step_loss(student, loss, batch, budget)

    wrapped, worst = DistributedDataParallel(Step(), find_unused_parameters=True), {}
    for name, options in OPTIONS.items():
        loss = parse(name, {name: options} if options else {}, lambda found: open_kind("losses", found))
        found = []
        for budget in (Budget(10**6, 10**6), Budget(40, 0)):
            wrapped.zero_grad()
            wrapped(loss, budget).backward()
            found.append(torch.cat([p.grad.flatten() for p in wrapped.parameters() if p.grad is not None]))
        whole, cached = found
        worst[name] = float((whole - cached).abs().max() / whole.abs().max())
        gathered = [torch.empty_like(cached) for _ in range(2)]
        torch.distributed.all_gather(gathered, cached)
        worst[f"{name} between processes"] = float((gathered[0] - gathered[1]).abs().max())
    if rank == 0:
        json.dump(worst, sys.stdout)
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1])
