"""A language model scores, is killed, and scores again: ``python llm_kill_driver.py FOLDER KIND SEED KILLS``.

One process imports once and forks a child for each life; it computes nothing itself, so that no thread is forked.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import torch
from llm_tiny import card
from score_fakes import make_groups
from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: F401

from rerankdistill.scores.card import Context
from rerankdistill.scores.kinds import causal, listwise
from rerankdistill.scores.score import score
from rerankdistill.scores.store import open_store

KINDS = {"causal": (causal.Kind, "logit", {}), "listwise": (listwise.Kind, "rank", {"window": 3, "step": 1})}
QUERIES, DOCS, BATCH = 12, 5, 5


def live(folder: Path, name: str, scores: str) -> None:
    """Score everything into ``folder / SCORES``, noting the pairs of each call before they are judged."""
    torch.set_num_threads(1)
    kind, scale, options = KINDS[name]
    made = card(str(folder / "model"), kind=name, scale=scale, dtype="float32", options=options)
    teacher = kind.open(made, Context("cpu"))
    judge = teacher.judge

    def noted(groups):
        with (folder / f"{scores}.side").open("ab", buffering=0) as side:
            os.write(side.fileno(), f"{sum(len(group.doc_ids) for group in groups):4}\n".encode())
        return judge(groups)

    teacher.judge = noted
    with open_store(folder / scores, "tiny", teacher, compact_pairs=20) as store:
        score(store, teacher, make_groups(QUERIES, DOCS), batch_pairs=BATCH, max_batch_pairs=BATCH)


def child(folder: Path, name: str, scores: str) -> int:
    pid = os.fork()
    if pid == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        live(folder, name, scores)
        os._exit(0)
    return pid


def main(folder: Path, name: str, seed: int, kills: int) -> None:
    dice, killed, side = random.Random(seed), 0, folder / "killed.side"
    side.touch()
    for _ in range(kills):
        calls, before, wait = 5, side.stat().st_size, dice.randint(1, 2)
        pid = child(folder, name, "killed")
        ended = os.WEXITED | os.WNOHANG | os.WNOWAIT
        while side.stat().st_size - before < wait * calls and os.waitid(os.P_PID, pid, ended) is None:
            time.sleep(0.0005)
        time.sleep(dice.random() * 0.03)
        os.kill(pid, signal.SIGKILL)
        killed += os.WIFSIGNALED(os.waitpid(pid, 0)[1])
    ends = [os.waitpid(child(folder, name, scores), 0)[1] for scores in ("killed", "killed", "undisturbed")]
    json.dump({"killed": killed, "ends": ends}, sys.stdout)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
