"""Scores, is killed, and scores again: ``python kill_driver.py FOLDER SEED KILLS``. Prints what happened as JSON.

One process imports once and forks a child for each life, so that twenty kills take seconds. It must stay light: no
torch, no pandas, and no Arrow threads before a fork.
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

from score_fakes import FakeTeacher, make_groups

from rerankdistill.scores.score import score
from rerankdistill.scores.store import open_store

BATCH, COMPACT = 10, 75


def live(folder: Path, sleep: float) -> None:
    teacher = FakeTeacher(folder / "side", sleep)
    with open_store(folder, "fake", teacher, compact_pairs=COMPACT) as store:
        score(store, teacher, make_groups(120, 25), batch_pairs=BATCH, max_batch_pairs=BATCH)


def calls(folder: Path) -> int:
    side = folder / "side"
    return side.stat().st_size if side.exists() else 0


def compacting(folder: Path) -> bool:
    """Whether the process died between the first byte of a part and the emptied log."""
    for store in folder.glob("fake-*"):
        manifest = json.loads((store / "manifest.json").read_text()) if (store / "manifest.json").exists() else None
        named = {part["name"] for part in manifest["counts"]["parts"]} if manifest else set()
        there = {path.name for path in store.glob("part-*.parquet")}
        if there - named or list(store.glob(".*.part")):
            return True
    return False


def main(folder: Path, seed: int, kills: int) -> None:
    dice = random.Random(seed)
    killed = amid = finished = 0
    for _ in range(kills):
        before, wait = calls(folder), dice.randint(0, 8) * 3
        child = os.fork()
        if child == 0:
            live(folder, 0.002)
            os._exit(0)
        while (
            calls(folder) - before < wait and os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
        ):
            time.sleep(0.0002)
        time.sleep(dice.random() * 0.02)
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        killed += os.WIFSIGNALED(status)
        finished += os.WIFEXITED(status)
        amid += compacting(folder)
    live(folder, 0.0)
    heavy = sorted({"torch", "pandas", "scipy"} & set(sys.modules))
    json.dump({"killed": killed, "amid": amid, "finished": finished, "heavy": heavy}, sys.stdout)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
