from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def server():
    """A conforming server of the tests' own, on loopback."""
    from endpoint_servers import serve

    with serve() as running:
        yield running


@pytest.fixture
def no_key(monkeypatch):
    """Whoever runs the tests may have a key; no test shall send it."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
