"""The README's commands are real: every one parses, the cheap ones run, and what it prints is what they print."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"
BLOCK = re.compile(r"```console\n(.*?)```", re.DOTALL)
CHEAP = {"teachers", "indexes", "losses", "pipelines", "doctor"}


def transcripts() -> list[tuple[str, str]]:
    """``(command, what the README says it prints)``."""
    found = []
    for block in BLOCK.findall(README.read_text("utf-8")):
        for part in re.split(r"(?m)^\$ ", block)[1:]:
            command, _, printed = part.partition("\n")
            found.append((command.strip(), printed.strip()))
    return found


def ours() -> list[tuple[str, str]]:
    return [(command, printed) for command, printed in transcripts() if command.startswith("rerankdistill ")]


def run(command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    words = shlex.split(command)[1:]
    program = [sys.executable, "-c", "from rerankdistill.cli.app import main; main()", *words]
    return subprocess.run(program, cwd=cwd, capture_output=True, text=True, check=False)


def test_the_readme_shows_commands() -> None:
    assert len(ours()) >= 6
    assert any(command == "make quickstart" for command, _ in transcripts())


@pytest.mark.parametrize(("command", "printed"), ours(), ids=[command[:60] for command, _ in ours()])
def test_every_command_of_the_readme_is_understood(command: str, printed: str, tmp_path: Path) -> None:
    """A verb or option that was renamed is an exit code of 2 with a usage text."""
    words = shlex.split(command)
    if words[1] in CHEAP and words[2:3] != ["measure"]:
        done = run(command, tmp_path)
        assert done.returncode == 0, done.stderr
        if printed:
            assert " ".join(printed.split()) in " ".join(done.stdout.split())
        return
    done = run(" ".join(shlex.quote(word) for word in [*words, "--help"]), tmp_path)
    assert done.returncode == 0, done.stderr
    options = [word for word in words if word.startswith("--")]
    assert all(option in done.stdout for option in options), (options, done.stdout)
