"""A pipeline in miniature: a made-up encyclopaedia, a tiny student, a tiny bi-encoder with BM25 as its teacher."""
# ruff: noqa: E402  the helpers lie beside the tests

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).parent.parent
sys.path[:0] = [str(TESTS / "students"), str(TESTS / "collections"), str(Path(__file__).parent)]

from mini_pipeline import VOCABULARY, table, write_collection, write_teachers
from tiny_models import tiny_bi_encoder, tiny_cross_encoder


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``student``, ``teacher`` (three layers) and ``cross``."""
    home = tmp_path_factory.mktemp("models")
    tiny_bi_encoder(home / "student", VOCABULARY, seed=1, layers=2)
    tiny_bi_encoder(home / "teacher", VOCABULARY, seed=2, layers=3)
    tiny_cross_encoder(home / "cross", VOCABULARY, seed=3)
    return home


@pytest.fixture
def collection(tmp_path: Path) -> Path:
    return write_collection(tmp_path / "towns")


@pytest.fixture
def teachers(tmp_path: Path, models: Path) -> Path:
    return write_teachers(tmp_path / "teachers", models)


@pytest.fixture
def mini(collection: Path, teachers: Path, models: Path) -> dict[str, Any]:
    return table(collection, teachers, models)
