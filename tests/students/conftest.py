"""Tiny models, and made-up lists: a teacher that likes the document with the query's own word."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from tiny_lessons import DOCS, QUERIES
from tiny_models import tiny_bi_encoder, tiny_cross_encoder, tiny_encoder

TEXTS = [*DOCS.values(), *QUERIES]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bi-encoder of three layers."""
    return tiny_bi_encoder(tmp_path_factory.mktemp("models") / "bi", TEXTS)


@pytest.fixture(scope="session")
def tiny_ce(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cross-encoder of two layers."""
    return tiny_cross_encoder(tmp_path_factory.mktemp("models") / "ce", TEXTS)


@pytest.fixture(scope="session")
def tiny_distilbert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder(tmp_path_factory.mktemp("models") / "distilbert", TEXTS, family="distilbert")


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Threads only get in each other's way with matrices this small, on a busy machine by a hundredfold."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor with fast bfloat16 would blur equalities that are held to 1e-5."""
    from rerankdistill import devices

    monkeypatch.setattr(devices, "fast_bfloat16", lambda _: False)


@pytest.fixture
def chance() -> np.random.Generator:
    return np.random.default_rng(7)
