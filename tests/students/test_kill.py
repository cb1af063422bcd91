"""A process that trains may be killed at any moment: it goes on from its last whole checkpoint to the same end."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

DRIVER = Path(__file__).with_name("train_driver.py")


@pytest.mark.parametrize(("seed", "kills"), [(1, 6), pytest.param(2, 24, marks=pytest.mark.slow)])
def test_kill_nine_at_seeded_moments_changes_no_weight_and_no_point_of_the_curve(tiny, tmp_path, seed, kills):
    shutil.copytree(tiny, tmp_path / "model")
    done = subprocess.run(
        [sys.executable, str(DRIVER), str(tmp_path), str(seed), str(kills)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    what = json.loads(done.stdout)
    assert what["ends"] == [0, 0], done.stderr
    assert what["killed"] == kills, what
    assert what["resumed"] >= kills // 3, what
    undisturbed = result_of(tmp_path / "undisturbed")
    for number in range(what["trainings"]):
        weights, about = result_of(tmp_path / f"killed{number}")
        assert about == undisturbed[1]
        for name, value in weights.items():
            torch.testing.assert_close(value, undisturbed[0][name], atol=1e-6, rtol=0, msg=name)


def result_of(folder: Path) -> tuple[dict[str, torch.Tensor], object]:
    return torch.load(folder / "weights.pt"), json.loads((folder / "about.json").read_text())


LAUNCHED = """
import json, os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import torch
from tiny_lessons import lists
from rerankdistill import devices
devices.fast_bfloat16 = lambda _: False
from rerankdistill.kinds import open_kind
from rerankdistill.losses.combine import parse
from rerankdistill.students.kinds.bi_encoder import BiEncoderOptions, Kind
from rerankdistill.students.train import StageOptions, loss_curve, train
torch.set_num_threads(1)
torch.manual_seed(1)
student = Kind.create(BiEncoderOptions(init=sys.argv[2]), "cpu")
loss = parse("kl_div", {"kl_div": {"tau_student": 0.1}}, lambda name: open_kind("losses", name))
stage = StageOptions(steps=6, batch=int(sys.argv[4]), learning_rate=1e-4)
out = Path(sys.argv[3])
train(student, lists("batch"), loss, stage, out / "work", 1)
torch.save(student.network.state_dict(), out / f"weights-{os.environ.get('RANK', '0')}.pt")
"""


@pytest.mark.slow
def test_two_processes_under_torchrun_take_the_steps_of_one_with_twice_the_batch(tiny, tmp_path):
    script = tmp_path / "launched.py"
    script.write_text(LAUNCHED)
    found = []
    for name, launch, batch in (
        ("two", ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "29677"], "4"),
        ("one", [], "8"),
    ):
        out = tmp_path / name
        out.mkdir()
        command = [sys.executable, *launch, str(script), str(DRIVER.parent), str(tiny), str(out), batch]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        found.append([torch.load(path) for path in sorted(out.glob("weights-*.pt"))])
    (first, second), (alone,) = found
    for name, value in first.items():
        assert torch.equal(value, second[name]), "the two processes drifted apart"
        # kl_div reads a query's own list alone, so the mean over two halves is the mean over the whole
        torch.testing.assert_close(value, alone[name], atol=1e-4, rtol=0, msg=name)
