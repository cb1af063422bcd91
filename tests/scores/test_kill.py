"""A process that scores may be killed at any moment: the end is that of an undisturbed one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from score_fakes import FakeTeacher, make_groups

from rerankdistill.scores.score import score
from rerankdistill.scores.store import open_store, read_store, store_folder

DRIVER = Path(__file__).with_name("kill_driver.py")
GROUPS = make_groups(120, 25)
PAIRS, BATCH = 3000, 10


def ride(folder: Path, seed: int, kills: int) -> dict[str, int]:
    done = subprocess.run(
        [sys.executable, str(DRIVER), str(folder), str(seed), str(kills)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def check(folder: Path, kills: int) -> None:
    teacher = FakeTeacher()
    with open_store(folder / "undisturbed", "fake", teacher) as store:
        score(store, teacher, GROUPS)
        wanted = store.lookup(GROUPS)
    with read_store(store_folder(folder, "fake", teacher.fingerprint)) as store:
        assert len(store) == PAIRS
        found = store.lookup(GROUPS)
        on_disk = sum(part["rows"] for part in store._manifest.counts["parts"])
    assert on_disk == PAIRS, "a pair is stored twice, or not at all"
    assert all(np.array_equal(a, b) for a, b in zip(found, wanted, strict=True))
    asked = sum(int(line) for line in (folder / "side").read_text().split())
    assert asked <= PAIRS + kills * BATCH, "more than one batch was scored again for a kill"


@pytest.mark.parametrize(("seed", "kills"), [(1, 22), pytest.param(2, 80, marks=pytest.mark.slow)])
def test_kill_nine_at_seeded_moments_loses_one_batch_at_most_and_doubles_none(tmp_path, seed, kills):
    what = ride(tmp_path, seed, kills)
    assert what["killed"] >= 20, what
    assert not what["heavy"], "a scoring process that needs no model imported more than it uses"
    check(tmp_path, what["killed"])
