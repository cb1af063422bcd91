"""A new student takes the place of the old one while clients ask, and a broken one never does."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest
from live import http, serving, wait_for

from rerankdistill import artifacts

TEXT = "rain cloud wind"

PUBLISH = """
import sys, shutil, time
from pathlib import Path
from rerankdistill import artifacts
place, students, n = Path(sys.argv[1]), sys.argv[2:], 0
while True:
    with artifacts.write(place, artifacts.plan("student", 1, {}, {})) as folder:
        shutil.copytree(students[n % len(students)], folder, dirs_exist_ok=True)
    n += 1
    print(n, flush=True)
"""


@pytest.fixture(scope="module")
def students(tiny_bert, tmp_path_factory):
    """Two students that differ, and the vector of :data:`TEXT` of each."""
    import torch
    from sentence_transformers import SentenceTransformer

    folder = tmp_path_factory.mktemp("students")
    shutil.copytree(tiny_bert, folder / "one")
    model = SentenceTransformer(tiny_bert, device="cpu")
    torch.manual_seed(2)
    vectors = [model.encode(TEXT, normalize_embeddings=True)]
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight))
    model.save(str(folder / "two"))
    vectors.append(model.encode(TEXT, normalize_embeddings=True))
    assert vectors[0] @ vectors[1] < 0.999
    return [folder / "one", folder / "two"], vectors


def publish(student: Path, place: Path) -> None:
    with artifacts.write(place, artifacts.plan("student", 1, {}, {})) as folder:
        shutil.copytree(student, folder, dirs_exist_ok=True)


def vector(url):
    told = http.post(f"{url}/embed", json={"inputs": TEXT}, timeout=60)
    assert told.status_code == 200, told.text
    return np.asarray(told.json()[0], np.float32)


def says(url, wanted):
    return np.allclose(vector(url), wanted, atol=2e-5)


@contextmanager
def asking(url, vectors, clients=4):
    """Clients that ask all the time; every answer must be wholly that of one student."""
    stop, wrong, count = threading.Event(), [], [0]

    def ask():
        while not stop.is_set():
            try:
                found = vector(url)
                count[0] += 1
                if not any(np.allclose(found, each, atol=2e-5) for each in vectors):
                    wrong.append(found)
            except Exception as error:
                wrong.append(error)

    threads = [threading.Thread(target=ask) for _ in range(clients)]
    for each in threads:
        each.start()
    try:
        yield count
    finally:
        stop.set()
        for each in threads:
            each.join(60)
    assert not wrong, wrong[:3]
    assert count[0] > 10


def test_a_student_is_replaced_without_dropping_a_request(students, tmp_path):
    folders, vectors = students
    place = tmp_path / "served"
    publish(folders[0], place)
    with serving(place, poll=0.1) as url, asking(url, vectors):
        for turn in (1, 0, 1):
            publish(folders[turn], place)
            wait_for(lambda turn=turn: says(url, vectors[turn]), 30)
        assert 'swaps_total{result="taken",what="student"} 3.0' in http.get(f"{url}/metrics").text


def test_a_broken_student_is_refused_and_the_next_whole_one_taken(students, tmp_path):
    folders, vectors = students
    place = tmp_path / "served"
    publish(folders[0], place)
    with serving(place, poll=0.1) as url, asking(url, vectors, 1):
        for damage in ("cut", "not a number", "no file"):
            broken = tmp_path / damage
            shutil.copytree(folders[1], broken)
            spoil(broken / "model.safetensors", damage)
            publish(broken, place)
            wait_for(lambda: http.get(f"{url}/readyz").json()["refused"], 30)
            assert http.get(f"{url}/readyz").json()["status"] == "ready"
            assert says(url, vectors[0])
            publish(folders[0], place)
            wait_for(lambda: not http.get(f"{url}/readyz").json()["refused"], 30)
        publish(folders[1], place)
        wait_for(lambda: says(url, vectors[1]), 30)


def spoil(weights: Path, damage: str) -> None:
    from safetensors.numpy import load_file, save_file

    if damage == "cut":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif damage == "no file":
        weights.unlink()
    else:
        save_file({name: np.full_like(each, np.nan) for name, each in load_file(weights).items()}, weights)


def test_a_file_written_over_in_place_does_not_change_what_is_served(students, tmp_path):
    folders, vectors = students
    place = tmp_path / "served"
    shutil.copytree(folders[0], place)
    with serving(place, poll=60) as url:
        with (place / "model.safetensors").open("r+b") as file:
            file.truncate(10)
        assert says(url, vectors[0])


def test_a_publisher_killed_at_any_moment_leaves_a_server_that_serves(students, tmp_path):
    folders, vectors = students
    place = tmp_path / "served"
    publish(folders[0], place)
    with serving(place, poll=0.1) as url, asking(url, vectors, 1):
        for turn in range(4):
            command = [sys.executable, "-c", PUBLISH, str(place), *map(str, folders)]
            writer = subprocess.Popen(command, stdout=subprocess.PIPE)
            writer.stdout.readline()
            time.sleep(0.013 * turn)
            os.kill(writer.pid, signal.SIGKILL)
            writer.wait()
            writer.stdout.close()
            time.sleep(0.3)
            assert any(says(url, each) for each in vectors)
        publish(folders[1], place)
        wait_for(lambda: says(url, vectors[1]), 30)
    assert not list(tmp_path.glob(".served.*")), "nothing is left beside it"


def test_a_server_started_after_its_publisher_was_killed_finds_the_old_student(students, tmp_path):
    folders, vectors = students
    place, gone = tmp_path / "served", subprocess.Popen(["true"])
    gone.wait()
    shutil.copytree(folders[0], tmp_path / f".served.{gone.pid}.old")
    with serving(place) as url:
        assert says(url, vectors[0])


def test_swapping_by_hand_needs_a_key(students, tmp_path, monkeypatch):
    folders, vectors = students
    place, key = tmp_path / "served", "a-key-of-the-tests"
    publish(folders[0], place)
    with serving(place, poll=60) as url:
        assert http.post(f"{url}/admin/swap").status_code == 403
    monkeypatch.setenv("RERANKDISTILL_API_KEYS", key)
    with serving(place, poll=60) as url:
        assert http.post(f"{url}/admin/swap").status_code == 401
        with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}) as client:
            assert client.post("/admin/swap").json()["swapped"] is False
            publish(folders[1], place)
            assert client.post("/admin/swap").json()["swapped"] is True
            found = client.post("/embed", json={"inputs": TEXT}).json()[0]
    np.testing.assert_allclose(found, vectors[1], atol=2e-5)
