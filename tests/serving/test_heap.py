"""The collector leaves alone what a server holds, and nothing that it has let go."""

from __future__ import annotations

import gc
import shutil
import weakref

import pytest
from live import serving, wait_for
from safetensors.numpy import load_file, save_file
from test_swap import publish

from rerankdistill.serving.heap import settle


@pytest.fixture(autouse=True)
def afterwards():
    gc.unfreeze()
    yield
    gc.unfreeze()


class Ring:
    """Holds itself: without the collector it is never gone."""

    def __init__(self):
        self.again = self


def test_what_was_let_go_is_collected_the_next_time():
    ring = Ring()
    there = weakref.ref(ring)
    settle()
    del ring
    gc.collect()
    assert there() is not None, "the collector does not look at it"
    settle()
    assert there() is None


def test_a_server_settles_when_it_starts_and_when_it_takes_another_student(tiny_bert, tmp_path):
    publish(tiny_bert, tmp_path / "served")
    other = shutil.copytree(tiny_bert, tmp_path / "other")
    weights = load_file(other / "model.safetensors")
    save_file({name: 2 * each for name, each in weights.items()}, other / "model.safetensors")
    with serving(tmp_path / "served", poll=0.1):
        assert gc.get_freeze_count() > 10_000
        gc.unfreeze()
        publish(other, tmp_path / "served")
        wait_for(gc.get_freeze_count)
