"""Exit codes, and an error for people: one message on stderr, a traceback only when asked for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from rerankdistill import __version__, errors
from rerankdistill.cli import app as command_line


def clean(done) -> None:
    assert done.out == ""
    assert done.err.startswith("error: ")
    assert "Traceback" not in done.err


def test_help_is_there_for_every_verb_and_names_no_debris(call):
    done = call("--help")
    assert done.code == 0
    verbs = [line.split()[0] for line in done.out.partition("Commands:")[2].splitlines() if line.strip()]
    assert {"train", "eval", "report", "doctor", "teachers"} <= set(verbs)
    assert not [line for line in done.out.splitlines()[1:] if line.endswith("...")], "a summary that is cut off"
    for verb in verbs:
        assert call(verb, "--help").code == 0


def test_the_version_is_the_packages(call):
    assert call("--version").out.strip() == __version__


@pytest.mark.parametrize(
    "arguments",
    [
        ["trian"],
        ["train", "--ouy", "x"],
        ["report"],
        ["rerank", "a.trec"],
        ["eval", "--seeds", "many"],
        ["train", "--seeds", "0"],
    ],
)
def test_a_wrong_command_is_two(call, arguments):
    done = call(*arguments)
    assert done.code == 2
    assert "Traceback" not in done.err


def test_a_slip_in_an_override_says_what_was_meant(call, pipeline, tmp_path):
    for override, code, meant in (
        ("mine.dept=5", 5, "did you mean 'depth'?"),
        ("students.tniy.kind=cross_encoder", 2, "did you mean 'tiny'?"),
        ("students.tiny.stages.0.train.stpes=1", 5, "did you mean 'steps'?"),
        ("mine.depth", 2, "--set"),
        ("students.tiny.stages.7.loss=kl_div", 2, "no place"),
    ):
        done = call("train", pipeline, "--out", tmp_path / "w", "--set", override)
        clean(done)
        assert (done.code, meant in done.err) == (code, True), done.err
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize(
    ("override", "code", "says"),
    [
        ("collection=./not-there", 5, "no such folder"),
        ("teacher=bm26", 5, "did you mean 'bm25'?"),
        ("students.tiny.stages.0.loss=kl_dvi", 5, "did you mean 'kl_div'?"),
        ("students.tiny.kind=by_encoder", 2, "did you mean 'bi_encoder'?"),
        ("students.tiny.options.layer=2", 5, "did you mean 'layers'?"),
        ("mine.indexes=['bm24']", 5, "did you mean 'bm25'?"),
        ("evaluate.0.measures=['ngcd@10']", 2, "ngcd"),
        ("device=cuda", 3, "no CUDA device"),
        ("students={}", 5, "students"),
    ],
)
def test_a_bad_field_is_said_before_anything_is_made(call, pipeline, tmp_path, override, code, says):
    import torch

    if code == 3 and torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    done = call("eval", pipeline, "--out", tmp_path / "w", "--set", override)
    assert (done.code, says in done.err) == (code, True), done.err
    assert "Traceback" not in done.err
    assert not done.out


def test_a_pipeline_that_is_not_there_or_is_no_toml(call, tmp_path):
    done = call("train", "quickstrat", "--out", tmp_path / "w")
    clean(done)
    assert (done.code, "did you mean 'quickstart'?" in done.err) == (5, True)
    broken = tmp_path / "broken.toml"
    broken.write_text("name = = 'x'")
    done = call("train", broken, "--out", tmp_path / "w")
    clean(done)
    assert (done.code, "line 1" in done.err) == (5, True)


def test_a_folder_that_cannot_be_written_is_said(call, pipeline, tmp_path):
    (tmp_path / "file").write_text("")
    for verb in ("train", "candidates"):
        done = call(verb, pipeline, "--out", tmp_path / "file" / "w")
        assert done.code == 4
        assert str(tmp_path / "file") in done.err
        assert "Traceback" not in done.err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.UsageError("x"), 2),
        (errors.MissingDependency("x"), 3),
        (errors.StaleArtifact("x"), 4),
        (errors.ScaleError("x"), 5),
        (errors.ExpectationNotMet("x"), 6),
        (FileNotFoundError(2, "No such file or directory", "a.trec"), 4),
        (ZeroDivisionError("division by zero"), 1),
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_error_ends_with_its_code_and_a_traceback_only_with_debug(call, monkeypatch, error, code):
    def failing(**_):
        raise error

    monkeypatch.setattr(command_line, "app", failing)
    done = call("eval")
    clean(done)
    assert done.code == code
    with pytest.raises(type(error)):
        call("eval", "--debug")


def test_debug_prints_a_traceback(tmp_path):
    command = [sys.executable, "-m", "rerankdistill", "teachers", "show", "none", "--debug"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "CardError" in done.stderr


def test_a_closed_pipe_is_no_error_to_complain_about():
    command = f"{sys.executable} -m rerankdistill losses list | true"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


def test_control_c_says_that_the_work_can_go_on(call, monkeypatch):
    monkeypatch.setattr("rerankdistill.artifacts.versions", lambda: os.kill(os.getpid(), signal.SIGINT))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    try:
        done = call("doctor")
    finally:
        signal.signal(signal.SIGINT, before)
    assert done.code == 130
    assert "run the same command again" in done.err


def test_the_doctor_says_what_is_here_and_how_to_get_the_rest(call, monkeypatch):
    import importlib.util

    done = call("doctor")
    assert done.code == 0, done.err
    for word in (__version__, "torch", "cores", "GPU", "faiss", "Lucene", "Java"):
        assert word in done.out
    monkeypatch.setattr(importlib.util, "find_spec", lambda *_: None)
    out = call("doctor").out
    assert "pip install 'rerankdistill[cpu]'" in out
    assert "pip install 'rerankdistill[lucene]'" in out
