"""The command line called in this process, a tiny collection, and a pipeline over a tiny random model."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rerankdistill.cli import app as command_line

WORDS = ["rain", "sun", "cloud", "wind", "cat", "dog", "bird", "fish", "stock", "bond", "market", "engine", "road"]


@dataclass(frozen=True)
class Done:
    """What a call came to."""

    code: int
    out: str
    err: str


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """``call("eval", "x.toml")``: the real entry point, in this process."""
    for name in ("TRANSFORMERS_VERBOSITY", "TRANSFORMERS_NO_ADVISORY_WARNINGS", "TQDM_DISABLE"):
        monkeypatch.setenv(name, "1")

    def calling(*arguments: Any) -> Done:
        monkeypatch.setattr(sys, "argv", ["rerankdistill", *map(str, arguments)])
        capsys.readouterr()
        shown = warnings.showwarning
        with warnings.catch_warnings():
            try:
                command_line.main()
                code = 0
            except SystemExit as end:
                code = int(end.code or 0)
            finally:
                warnings.showwarning = shown
        said = capsys.readouterr()
        return Done(code, said.out, said.err)

    return calling


@pytest.fixture(scope="session")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty documents, twenty training and ten test queries in BEIR layout."""
    folder = tmp_path_factory.mktemp("small")
    (folder / "qrels").mkdir()
    pairs = [(a, b) for a in WORDS for b in WORDS if a < b][:60]
    docs = [{"_id": f"d{n}", "title": f"{a} {b}", "text": f"the {a} and the {b} {a}"} for n, (a, b) in enumerate(pairs)]
    queries = [{"_id": f"q{n}", "text": f"{a} {b}"} for n, (a, b) in enumerate(pairs[:30])]
    for name, rows in (("corpus", docs), ("queries", queries)):
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n", "utf-8")
    for split, part in (("train", range(20)), ("test", range(20, 30))):
        lines = "".join(f"q{n}\td{n}\t1\n" for n in part)
        (folder / "qrels" / f"{split}.tsv").write_text("query-id\tcorpus-id\tscore\n" + lines, "utf-8")
    return folder


PIPELINE = """
name = "small"
description = "A test's own."
collection = "{collection}"
teacher = "bm25"
device = "cpu"

[mine]
indexes = ["bm25"]
depth = 8

[students.tiny]
options = {{ init = "{model}", query_tokens = 16, doc_tokens = 16 }}

[[students.tiny.stages]]
loss = "kl_div"
list_size = 4
train = {{ steps = 2, batch = 4, learning_rate = 1e-3 }}

[[evaluate]]
measures = ["ndcg@10", "mrr@10"]
depth = 20
"""


@pytest.fixture(scope="session")
def pipeline(tmp_path_factory: pytest.TempPathFactory, collection: Path, tiny_bert: str) -> Path:
    """A pipeline that trains for two steps."""
    path = tmp_path_factory.mktemp("pipeline") / "small.toml"
    path.write_text(PIPELINE.format(collection=collection, model=tiny_bert), "utf-8")
    return path
