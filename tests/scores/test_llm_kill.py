"""A language model that scores may be killed at any moment: nothing that is stored is asked again."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from llm_kill_driver import BATCH, DOCS, QUERIES
from llm_tiny import save_llama
from score_fakes import make_groups

from rerankdistill.scores.store import read_store

DRIVER = Path(__file__).with_name("llm_kill_driver.py")


@pytest.mark.parametrize(("kind", "seed"), [("causal", 1), ("listwise", 2)])
def test_a_killed_language_model_loses_a_batch_at_most_and_is_asked_nothing_twice(tmp_path, kind, seed):
    save_llama(tmp_path / "model", max_position_embeddings=4096)
    command = [sys.executable, str(DRIVER), str(tmp_path), kind, str(seed), "5"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    what = json.loads(done.stdout)
    assert what["ends"] == [0, 0, 0], done.stderr[-3000:]
    assert what["killed"] >= 3, what
    groups = make_groups(QUERIES, DOCS)
    stores = [read_store(next((tmp_path / name).glob("tiny-*"))) for name in ("killed", "undisturbed")]
    assert all(len(store) == QUERIES * DOCS for store in stores)
    for one, other in zip(*(store.lookup(groups) for store in stores), strict=True):
        np.testing.assert_array_equal(one, other)
    asked = [sum(map(int, (tmp_path / f"{name}.side").read_text().split())) for name in ("killed", "undisturbed")]
    assert asked[1] == QUERIES * DOCS
    assert asked[0] <= QUERIES * DOCS + what["killed"] * BATCH, "more than one batch was asked again for a kill"
    assert stores[0].usage == stores[1].usage, "what a stored answer cost is counted once"
