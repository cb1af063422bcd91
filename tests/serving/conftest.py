from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

for _each in ("fastapi", "uvicorn", "httptools", "prometheus_client"):
    pytest.importorskip(_each, reason=f"{_each} is not installed: pip install 'rerankdistill[serve]'")


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Threads only get in each other's way with matrices this small."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RERANKDISTILL_API_KEYS", raising=False)


@pytest.fixture(scope="session")
def tiny_cross(tiny_bert: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny BERT with a random head, as a cross-encoder's folder."""
    import torch
    from sentence_transformers import CrossEncoder

    folder = tmp_path_factory.mktemp("cross") / "reranker"
    torch.manual_seed(1)
    CrossEncoder(tiny_bert, num_labels=1, max_length=64, device="cpu").save_pretrained(str(folder))
    return folder


@pytest.fixture(scope="session")
def tokenizer(tiny_bert: str) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_bert)


@pytest.fixture(scope="module")
def url(tiny_bert: str) -> Any:
    """A server of the tiny bi-encoder."""
    from live import serving

    with serving(Path(tiny_bert)) as address:
        yield address


@pytest.fixture(scope="module")
def rerank_url(tiny_cross: Path) -> Any:
    """A server of the tiny cross-encoder."""
    from live import serving

    with serving(tiny_cross) as address:
        yield address
