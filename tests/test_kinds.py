"""A name becomes code: only the module that is asked for, and a missing package says its command."""

from __future__ import annotations

import sys

import pytest

from rerankdistill import kinds
from rerankdistill.errors import MissingDependency, UsageError


def test_a_slip_in_a_kinds_name_is_answered_with_the_right_one():
    with pytest.raises(UsageError) as caught:
        kinds.open_kind("losses", "kl_dv")
    assert "did you mean 'kl_div'?" in caught.value.fix
    with pytest.raises(UsageError, match="no index kind") as caught:
        kinds.open_kind("index", "zzz")
    assert "flat" in caught.value.fix


def test_helpers_of_a_room_cannot_be_asked_for_as_kinds():
    for name in ("guards", "combine", "__init__", "../errors", ""):
        with pytest.raises(UsageError):
            kinds.open_kind("losses", name)


def test_somebody_elses_kind_is_opened_by_its_path(tmp_path, monkeypatch):
    (tmp_path / "their_losses.py").write_text("class Own:\n    eats = frozenset()\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert kinds.open_kind("losses", "their_losses:Own").__name__ == "Own"
    with pytest.raises(UsageError, match="has no 'Other'"):
        kinds.open_kind("losses", "their_losses:Other")
    monkeypatch.delitem(sys.modules, "their_losses")


def test_a_missing_extra_says_the_command_that_brings_it(monkeypatch):
    monkeypatch.delitem(sys.modules, "rerankdistill.index.kinds.flat", raising=False)
    monkeypatch.setitem(sys.modules, "faiss", None)
    try:
        kind = kinds.open_kind("index", "flat")
        with pytest.raises(MissingDependency) as caught:
            kind.build(None, ["a"], [[1.0]], kind.Options())
    except MissingDependency as error:
        found = error
    else:
        found = caught.value
    assert "pip install 'rerankdistill[cpu]'" in found.fix
    assert found.exit_code == 3


def test_a_missing_package_of_somebody_elses_kind_is_named(tmp_path, monkeypatch):
    (tmp_path / "needy_kind.py").write_text("import no_such_package.inside\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MissingDependency, match="'no_such_package'") as caught:
        kinds.open_kind("scores", "needy_kind:Kind")
    assert caught.value.fix == "pip install no_such_package"


def test_asking_for_the_names_imports_no_kind():
    for room, package in kinds.ROOMS.items():
        before = {name for name in sys.modules if name.startswith(f"{package}.")}
        assert kinds.names(room) == sorted(kinds.names(room))
        assert {name for name in sys.modules if name.startswith(f"{package}.")} == before
