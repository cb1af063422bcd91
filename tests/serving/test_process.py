"""``rerankdistill serve`` as a process: how it starts, refuses to, counts its workers, and ends."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import psutil
import pytest
from live import Process, http, wait_for

from rerankdistill.serving.run import SPIN

KEY = "a-key-of-the-tests"


def test_it_drains_and_its_log_holds_no_text_of_a_user(tiny_bert):
    with Process(Path(tiny_bert), keys=KEY) as server:
        asked = {"inputs": ["the secret words are rain and wind " * 20] * 1000}
        headers, told = {"Authorization": f"Bearer {KEY}"}, []
        assert http.post(f"{server.url}/embed", json={"inputs": "a"}).status_code == 401
        assert http.get(f"{server.url}/secret-path?q=secret-query", headers=headers).status_code == 404
        large = threading.Thread(
            target=lambda: told.append(http.post(f"{server.url}/embed", json=asked, headers=headers, timeout=60))
        )
        large.start()
        wait_for(lambda: told or waiting(server.url, headers))
        server.terminate()
        wait_for(lambda: refuses(server.port))
        large.join()
        assert told[0].status_code == 200, "what was being answered is answered"
        assert len(told[0].json()) == 1000
        server.process.wait(20)
        assert server.process.returncode in (0, -signal.SIGTERM)
        log = server.said()
    lines = [json.loads(line) for line in log.splitlines()]
    answered = [(line["path"], line["status"]) for line in lines if line["event"] == "request"]
    assert {("(no route)", 401), ("(no route)", 404), ("/embed", 200)} <= set(answered)
    assert "secret" not in log
    assert KEY not in log


def waiting(url, headers):
    lines = http.get(f"{url}/metrics", headers=headers).text.splitlines()
    return any(line.startswith("rerankdistill_waiting_texts") and float(line.split()[-1]) > 0 for line in lines)


def refuses(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


@pytest.mark.parametrize(
    ("arguments", "says", "code"),
    [
        (["--host", "0.0.0.0"], "API keys", 2),  # noqa: S104
        (["--set", "max_text=3"], "max_texts", 5),
        (["--set", "port=x"], "port", 5),
        (["--key-file", "nowhere"], "nowhere", 2),
        (["--student", "other"], "there is no student 'other'", 2),
    ],
)
def test_what_it_cannot_do_is_said_before_it_starts(tmp_path, tiny_bert, capsys, monkeypatch, arguments, says, code):
    shutil.copytree(tiny_bert, tmp_path / "students" / "small-seed1")
    assert start(monkeypatch, tmp_path, *arguments) == code
    told = capsys.readouterr().err
    assert says in told
    assert "Traceback" not in told


def test_a_folder_without_a_student_says_what_to_give(tmp_path, capsys, monkeypatch):
    assert start(monkeypatch, tmp_path) == 4
    assert "→" in capsys.readouterr().err


def start(monkeypatch, *arguments):
    """The exit code of ``rerankdistill serve``."""
    from rerankdistill.cli.app import main

    monkeypatch.setattr(sys, "argv", ["rerankdistill", "serve", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        main()
    return end.value.code


@pytest.mark.parametrize("mine", ["", "7"])
def test_threads_know_how_long_to_look_for_work_before_torch_is_there(mine):
    """OpenMP reads it once, when torch is imported; a user's own choice stays."""
    program = """if True:
        import os, sys
        from rerankdistill.serving import run
        run.assemble = lambda settings: sys.exit(f"{os.environ['GOMP_SPINCOUNT']} {'torch' in sys.modules}")
        run.serve(run.Settings(place="."))"""
    env = {name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"}
    env |= {"GOMP_SPINCOUNT": mine} if mine else {}
    ran = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=False)
    assert ran.stderr.split() == [mine or SPIN, "False"]


@pytest.mark.slow
def test_workers_count_together_and_one_that_dies_is_replaced(tiny_bert):
    with Process(Path(tiny_bert), "--workers", "2") as server:
        workers = [
            each for each in psutil.Process(server.process.pid).children() if "spawn" in " ".join(each.cmdline())
        ]
        workers = [each for each in workers if "resource_tracker" not in " ".join(each.cmdline())]
        assert len(workers) == 2
        for _ in range(40):
            assert http.post(f"{server.url}/embed", json={"inputs": "rain"}).status_code == 200
        text = http.get(f"{server.url}/metrics").text
        assert 'rerankdistill_requests_total{path="/embed",status="200"} 40.0' in text
        os.kill(workers[0].pid, signal.SIGKILL)
        time.sleep(1)
        wait_for(lambda: answers(server.url), 60)
        wait_for(
            lambda: len([each for each in psutil.Process(server.process.pid).children() if each.is_running()]) >= 2
        )
        server.terminate()
        server.process.wait(60)


def answers(url):
    try:
        return http.post(f"{url}/embed", json={"inputs": "rain"}).status_code == 200
    except httpx.TransportError:
        return False


@pytest.mark.slow
def test_a_soak_does_not_grow(tiny_bert, tmp_path):
    """Requests of all kinds for a minute and a half, good and bad ones, with a swap every few seconds."""
    place, other = tmp_path / "served", tmp_path / "other"
    shutil.copytree(tiny_bert, place)
    with Process(place, "--set", "poll=0.5") as server, httpx.Client(base_url=server.url, timeout=60) as client:
        process, seen, end, count = psutil.Process(server.process.pid), [], time.monotonic() + 90, 0
        while time.monotonic() < end:
            texts = ["rain " * (1 + count % 60)] * (1 + count % 20)
            assert client.post("/v1/embeddings", json={"input": texts}).status_code == 200
            assert client.post("/v2/rerank", json={"query": "sun", "documents": texts}).status_code == 200
            assert client.post("/embed", content=b"{").status_code == 422
            assert client.post("/embed", json={"inputs": "a" * 200_000}).status_code == 413
            assert client.get("/metrics").status_code == 200
            count += 1
            if count % 50 == 0:
                shutil.copytree(tiny_bert, other)
                place.rename(tmp_path / "old")
                other.rename(place)
                shutil.rmtree(tmp_path / "old")
                seen.append(process.memory_info().rss)
    half = len(seen) // 2
    assert half >= 2
    assert max(seen[half:]) < 1.05 * max(seen[:half]) + 5e6, seen
