"""Trains, is killed, and trains again: ``python train_driver.py FOLDER SEED KILLS``. Prints what happened as JSON.

One process imports once and forks a child for each life. The parent computes nothing, so that no thread is forked.
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

import sentence_transformers  # noqa: F401
import torch
from tiny_lessons import LESSONS, lists
from transformers import Trainer  # noqa: F401

from rerankdistill.kinds import open_kind
from rerankdistill.losses.combine import parse
from rerankdistill.students.kinds.bi_encoder import BiEncoderOptions, Kind
from rerankdistill.students.train import StageOptions, last_checkpoint, loss_curve, train

STEPS, EVERY = 24, 2
STAGE = StageOptions(steps=STEPS, batch=4, learning_rate=2e-3, evaluate_every=EVERY, keep_best=True)


class Dev:
    """Some figure that depends on the weights, and is best somewhere in the middle."""

    measure = "made up"

    def __call__(self, student):
        probe = student.encoder().encode([LESSONS[0].query], "query")
        return float((probe * 1000).sum() % 1)


def live(folder: Path, name: str) -> None:
    """Train in ``folder / NAME-work`` and leave weights and history in ``folder / NAME``."""
    torch.set_num_threads(1)
    torch.manual_seed(1)
    student = Kind.create(BiEncoderOptions(init=str(folder / "model")), "cpu")
    loss = parse("kl_div", {"kl_div": {"tau_student": 0.1}}, lambda name: open_kind("losses", name))

    def told(step, *_):
        with (folder / "side").open("a") as file:
            file.write(f"{step}\n")

    result = train(student, lists(), loss, STAGE, folder / f"{name}-work", 1, Dev(), told)
    end = folder / name
    end.mkdir(exist_ok=True)
    torch.save(student.network.state_dict(), end / "weights.pt")
    about = {"curve": loss_curve(result.history), "best": result.best, "steps": result.steps}
    (end / "about.json").write_text(json.dumps(about))


def child(folder: Path, name: str) -> int:
    pid = os.fork()
    if pid == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        live(folder, name)
        os._exit(0)
    return pid


def steps_done(folder: Path) -> int:
    side = folder / "side"
    return len(side.read_text().split()) if side.exists() else 0


def main(folder: Path, seed: int, kills: int) -> None:
    """Kill ``kills`` times. A training that ends in between counts no kill; the next one is killed from its start."""
    dice = random.Random(seed)
    killed = torn = resumed = whole = 0
    for _ in range(10 * kills):
        work = folder / f"killed{whole}-work"
        resumed += last_checkpoint(work) is not None
        before, wait = steps_done(folder), dice.randint(0, 2 * EVERY)
        pid = child(folder, f"killed{whole}")
        while (
            steps_done(folder) - before < wait
            and os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
        ):
            time.sleep(0.001)
        time.sleep(dice.random() * 0.05)
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        killed += os.WIFSIGNALED(status)
        whole += status == 0
        torn += any(not (path / "trainer_state.json").exists() for path in work.glob("checkpoint-*"))
        if killed == kills:
            break
    in_all = steps_done(folder)
    ends = [os.waitpid(child(folder, name), 0)[1] for name in (f"killed{whole}", "undisturbed")]
    counts = {"killed": killed, "torn": torn, "resumed": resumed, "steps": in_all, "trainings": whole + 1}
    json.dump({**counts, "ends": ends}, sys.stdout)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
