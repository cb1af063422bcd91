"""Rule 4 of the house: every product is a folder with a manifest, whole or not there at all."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerankdistill import artifacts
from rerankdistill.errors import ArtifactError, DamagedArtifact, MissingArtifact, StaleArtifact

CARD, INPUTS = {"depth": 10, "view": "text"}, {"corpus": "aa", "run bm25": "bb"}


def planned(**changes):
    return artifacts.plan(**{"kind": "examples", "format": 1, "card": CARD, "inputs": INPUTS, "seed": 1} | changes)


def make(folder: Path, text: str = "whole", manifest=None) -> None:
    with artifacts.write(folder, manifest or planned()) as staging:
        (staging / "data.txt").write_text(text)


def around(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.parent.iterdir())


def test_a_write_that_raises_leaves_nothing_behind(tmp_path):
    def fill():
        with artifacts.write(tmp_path / "a", planned()) as staging:
            (staging / "half").write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fill()
    assert around(tmp_path / "a") == []


def test_whoever_may_read_the_manifest_may_read_every_file(tmp_path):
    """safetensors makes files of mode 600, which the user that a server runs as could not read."""
    with artifacts.write(tmp_path / "a", planned()) as staging:
        (staging / "inner").mkdir()
        (staging / "inner/model.safetensors").touch(mode=0o600)
        (staging / "run.sh").touch(mode=0o755)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "a").rglob("*") if path.is_file()}
    assert modes.pop("run.sh") == 0o755
    assert len(set(modes.values())) == 1


def test_a_failed_rewrite_leaves_what_was_there(tmp_path):
    make(tmp_path / "a")
    with pytest.raises(KeyboardInterrupt), artifacts.write(tmp_path / "a", planned(seed=2)):
        raise KeyboardInterrupt
    assert (tmp_path / "a" / "data.txt").read_text() == "whole"
    assert artifacts.why_stale(tmp_path / "a", planned()) is None
    assert around(tmp_path / "a") == ["a"]


def test_a_full_disk_is_said_in_one_sentence_and_harms_nothing(tmp_path):
    make(tmp_path / "a")
    with pytest.raises(ArtifactError, match="No space left") as caught, artifacts.write(tmp_path / "a", planned()):
        raise OSError(28, "No space left on device")
    assert "free some space" in caught.value.fix
    assert (tmp_path / "a" / "data.txt").read_text() == "whole"


LINUX = pytest.mark.skipif(sys.platform != "linux", reason="two folders change places on Linux alone")
KILLED = """
import os, signal, sys
from pathlib import Path
from rerankdistill import artifacts
folder, moment = Path(sys.argv[1]), sys.argv[2]
manifest = artifacts.plan("examples", 1, {}, {}, 2)
renames = 0
def counted(rename):
    def counting(self, target):
        global renames
        renames += 1
        done = rename(self, target)
        if moment == f"after rename {renames}":
            os.kill(os.getpid(), signal.SIGKILL)
        return done
    return counting
Path.rename = counted(Path.rename)
exchange = artifacts._exchange
def exchanging(one, other):
    if moment.startswith("after rename"):
        return False  # as on a system that cannot
    done = exchange(one, other)
    if moment == "after exchange":
        os.kill(os.getpid(), signal.SIGKILL)
    return done
artifacts._exchange = exchanging
with artifacts.write(folder, manifest) as staging:
    (staging / "data.txt").write_text("new")
    if moment == "while writing":
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize(
    ("moment", "expected", "found"),
    [
        ("while writing", "old", [".a.PID.part", "a"]),
        ("after rename 1", "old", [".a.PID.old", ".a.PID.part"]),
        ("after rename 2", "new", [".a.PID.old", "a"]),
        pytest.param("after exchange", "new", [".a.PID.part", "a"], marks=LINUX),
    ],
)
def test_a_writer_killed_at_its_worst_moments_loses_nothing(tmp_path, moment, expected, found):
    make(tmp_path / "a", "old")
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "a"), moment])
    assert done.returncode == -signal.SIGKILL
    names = [".".join("PID" if part.isdigit() else part for part in name.split(".")) for name in around(tmp_path / "a")]
    assert sorted(names) == sorted(found), "the killed process did not get as far as this test means it to"
    artifacts.sweep(tmp_path / "a")
    assert around(tmp_path / "a") == ["a"]
    assert (tmp_path / "a" / "data.txt").read_text() == expected
    artifacts.read(tmp_path / "a", "examples")


def test_a_neighbour_whose_name_begins_alike_is_not_swept(tmp_path):
    other = tmp_path / ".ab.123.part"
    other.mkdir()
    make(tmp_path / "a")
    assert other.is_dir()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"format": 2}, "format changed"),
        ({"card": {**CARD, "depth": 11}}, "depth changed"),
        ({"card": {**CARD, "extra": 1, "depth": 9}}, "depth, extra changed"),
        ({"card": {"depth": 10}}, "view changed"),
        ({"inputs": {**INPUTS, "corpus": "cc"}}, "corpus changed"),
        ({"seed": 2}, "seed changed"),
    ],
)
def test_what_changed_is_named_and_decides_the_fingerprint(tmp_path, change, reason):
    make(tmp_path / "a")
    wanted = planned(**change)
    assert wanted.fingerprint != planned().fingerprint
    assert artifacts.why_stale(tmp_path / "a", wanted) == reason
    with pytest.raises(StaleArtifact, match=reason):
        artifacts.require(tmp_path / "a", wanted)


def test_another_kind_or_a_damaged_manifest_is_never_read_as_ours(tmp_path):
    make(tmp_path / "a")
    assert "not a run" in artifacts.why_stale(tmp_path / "a", planned(kind="run"))
    with pytest.raises(DamagedArtifact, match="this is a examples, not a run"):
        artifacts.read(tmp_path / "a", "run")
    for text in ("{", "[]", '{"kind": "examples"}', '{"unknown": 1}'):
        (tmp_path / "a" / "manifest.json").write_text(text)
        with pytest.raises(DamagedArtifact, match="cannot be read"):
            artifacts.read(tmp_path / "a", "examples")
    (tmp_path / "a" / "manifest.json").unlink()
    with pytest.raises(MissingArtifact):
        artifacts.read(tmp_path / "a", "examples")
    assert artifacts.why_stale(tmp_path / "a", planned()) == "not made yet"


def test_versions_and_seconds_are_recorded_and_decide_nothing(tmp_path):
    make(tmp_path / "a")
    path = tmp_path / "a" / "manifest.json"
    manifest = json.loads(path.read_text())
    assert "numpy" in manifest["versions"]
    path.write_text(json.dumps(manifest | {"versions": {"numpy": "0.0"}, "seconds": 99.0, "counts": {"rows": 1}}))
    assert artifacts.why_stale(tmp_path / "a", planned()) is None


def test_the_order_of_a_cards_fields_does_not_make_a_product_stale():
    assert planned(card=dict(reversed(CARD.items()))).fingerprint == planned().fingerprint


parts = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@given(st.lists(parts, max_size=3), st.lists(parts, max_size=3))
def test_fingerprints_differ_when_any_part_does(one, other):
    same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    assert (artifacts.fingerprint(*one) == artifacts.fingerprint(*other)) is same


def test_two_parts_are_not_their_concatenation():
    assert artifacts.fingerprint(b"ab", b"c") != artifacts.fingerprint(b"a", b"bc") != artifacts.fingerprint(b"abc")
