"""The whole walk under torchrun: one process mines and scores, all of them train."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import tomlkit
from mini_pipeline import table, write_collection


@pytest.mark.slow
def test_two_processes_walk_one_way_and_leave_one_student(teachers, models, tmp_path):
    """Two processes that both mine would tear each other's products; one that mines alone would train alone."""
    pipeline = tmp_path / "mini.toml"
    pipeline.write_text(tomlkit.dumps(table(write_collection(tmp_path / "docs"), teachers, models)), "utf-8")
    launch = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "29681", "-m"]
    out = tmp_path / "work"
    command = [sys.executable, *launch, "rerankdistill", "train", str(pipeline), "--out", str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=400, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stderr.count("done    examples") == 1
    assert (out / "students/small-seed1/manifest.json").is_file()
    assert not list(out.rglob("*.part"))
    again = subprocess.run(
        [sys.executable, "-m", "rerankdistill", "train", str(pipeline), "--out", str(out)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert again.returncode == 0, again.stderr
    assert "\nrun " not in again.stderr
