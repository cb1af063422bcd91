"""Scores lists, is killed, and scores again: ``python list_kill_driver.py FOLDER SEED KILLS``; see ``kill_driver``."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from list_fakes import FakeListTeacher
from score_fakes import make_groups

from rerankdistill.scores.score import score
from rerankdistill.scores.store import open_store

LISTS, SIZE, BATCH, COMPACT = 60, 7, 10, 60


def live(folder: Path, sleep: float) -> None:
    teacher = FakeListTeacher(folder / "side", sleep)
    with open_store(folder, "lists", teacher, compact_pairs=COMPACT) as store:
        score(store, teacher, make_groups(LISTS, SIZE), batch_pairs=BATCH, max_batch_pairs=BATCH)


def main(folder: Path, seed: int, kills: int) -> None:
    dice, killed = random.Random(seed), 0
    side = folder / "side"
    side.touch()
    while killed < kills:
        before, wait = side.stat().st_size, dice.randint(0, 3) * 4
        child = os.fork()
        if child == 0:
            live(folder, 0.01)
            os._exit(0)
        ended = os.WEXITED | os.WNOHANG | os.WNOWAIT
        while side.stat().st_size - before < wait and os.waitid(os.P_PID, child, ended) is None:
            time.sleep(0.0002)
        time.sleep(dice.random() * 0.02)
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):
            break
        killed += 1
    live(folder, 0.0)
    sys.stdout.write(str(killed))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
