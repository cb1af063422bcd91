"""Two processes that compare everything with everything learn what one with the whole batch would learn."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rerankdistill.students.together import Blocks, shared_out

DRIVER = Path(__file__).parent / "together_driver.py"


def run(launch, *arguments):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *launch, str(DRIVER), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


@pytest.mark.slow
def test_two_processes_have_loss_gradient_and_training_of_one_with_the_whole_batch(tiny, tmp_path):
    """Averaged by process, the loss of a process with few queries would count as much as that of one with many, and
    negatives of the other process would not count at all."""
    both = run(["-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "29683"], tiny, tmp_path)
    one = run([], tiny, tmp_path)
    cases = [name for name in both if name.startswith(("gather", "apart"))]
    assert len(cases) == 8
    for name in cases:
        assert max(both[name]) < 1e-6, (name, both[name])
    np.testing.assert_allclose(both["history"], one["history"], rtol=1e-5)
    np.testing.assert_allclose(both["weights"], one["weights"], atol=1e-5)


def test_whatever_part_of_a_step_a_process_is_given_it_lays_out_all_of_it():
    blocks = Blocks([f"item {at}" for at in range(12)], 6, list)
    assert blocks.collate([blocks[0], blocks[1], blocks[2]]) == [f"item {at}" for at in range(6)]
    assert blocks.collate([blocks[9], blocks[10], blocks[11]]) == [f"item {at}" for at in range(6, 12)]
    assert len(blocks) == 12


def test_a_process_without_company_encodes_everything_itself():
    import torch

    assert shared_out(["a", "b"], lambda texts: torch.zeros(len(texts), 3)).shape == (2, 3)
