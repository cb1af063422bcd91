"""What was paid for once is not paid for again: a kill costs a batch, new documents cost their own."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from helpers_pipeline import Heard

from rerankdistill import artifacts
from rerankdistill.cards import parse
from rerankdistill.encoding import TextEncoder
from rerankdistill.pipeline import adapting
from rerankdistill.pipeline.adapting import collection_step, written_step
from rerankdistill.pipeline.card import PipelineCard
from rerankdistill.pipeline.lessons import mining_model
from rerankdistill.pipeline.reading import AdaptCard, documents_step
from rerankdistill.pipeline.step import Quiet, walk
from rerankdistill.pipeline.vectors import docs_of, read_vectors, vectors_step
from rerankdistill.pipeline.workspace import Workspace
from rerankdistill.queries.generate import BATCH
from rerankdistill.scores.kinds import cross_encoder
from rerankdistill.types import View

DRIVER = Path(__file__).with_name("adapt_kill_driver.py")


def numbered(home: Path, numbers: Sequence[int]) -> Path:
    """A folder with a document for each number, every one in words of its own."""
    home.mkdir(exist_ok=True)
    rows = (
        {"title": f"Town {n}", "text": f"The mill of town {n} has {n % 7} stones by the river{n % 97}."}
        for n in numbers
    )
    with (home / "docs.jsonl").open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    return home


def test_kill_9_of_generate_costs_a_batch_at_most(tmp_path: Path) -> None:
    folder, out = numbered(tmp_path / "files", range(100)), tmp_path / "out"
    deaths = 0
    for dies in ("1", "2", "0"):
        done = subprocess.run([sys.executable, str(DRIVER), str(folder), str(out), dies], check=False)
        deaths += done.returncode == -signal.SIGKILL
    assert done.returncode == 0
    assert deaths == 2
    asked = Counter((out / "asked.txt").read_text("utf-8").split())
    assert len(asked) == 200
    assert asked.total() <= 200 + 2 * BATCH, "each death costs the batch that it met, and nothing before it"


def test_documents_that_another_collection_holds_are_not_encoded_again(mini: dict[str, Any], tmp_path: Path) -> None:
    ws = Workspace(parse(PipelineCard, mini, "mini"), tmp_path / "out", Quiet())
    model = mining_model(ws)
    texts = (docs_of(ws.source(), View.TITLE_TEXT, label) for label in ("docs", "another-docs"))
    steps = [vectors_step(ws, model, each) for each in texts]
    for step in steps:
        walk([step], Quiet())
    assert [artifacts.read(step.folder, "vectors").counts["encoded"] for step in steps] == [80, 0]
    one, other = (read_vectors(step) for step in steps)
    assert one[0] == other[0]
    assert (one[1] == other[1]).all()


class Calls:
    """Counts what a model is asked: queries written, texts encoded, pairs scored."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.counts: Counter[str] = Counter()
        encode, judge, opener = TextEncoder.encode, cross_encoder.Kind.judge, adapting.open_writer

        def encoding(encoder: Any, texts: Sequence[str], role: str, *more: Any) -> Any:
            self.counts[f"{role} encoded"] += len(texts) if len(texts) > 1 else 0  # single ones are timed
            return encode(encoder, texts, role, *more)

        def judging(teacher: Any, groups: Sequence[Any]) -> Any:
            self.counts["pairs"] += sum(len(group.doc_ids) for group in groups)
            return judge(teacher, groups)

        def opening(*about: Any) -> Any:
            writer = opener(*about)

            class Counted:
                mark = writer.mark

                def __call__(_, requests: Sequence[Any]) -> Any:  # noqa: N805
                    self.counts["written"] += len(requests)
                    return writer(requests)

            return Counted()

        monkeypatch.setattr(TextEncoder, "encode", encoding)
        monkeypatch.setattr(cross_encoder.Kind, "judge", judging)
        monkeypatch.setattr(adapting, "open_writer", opening)

    def take(self) -> Counter[str]:
        found, self.counts = self.counts, Counter()
        return found


def test_ten_documents_more_cost_a_hundredth_of_a_thousand(
    tmp_path: Path, mini: dict[str, Any], teachers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, out, calls = numbered(tmp_path / "files", range(1000)), tmp_path / "out", Calls(monkeypatch)
    table = {**mini, "teacher": str(teachers / "cross.toml"), "mine": {"depth": 3, "encoder": encoder_of(mini)}}
    asked = {"docs": str(folder), "sift": {"round_trip": 0}, "styles": {"title": 1, "question": 1, "keywords": 1}}
    card = parse(AdaptCard, {**asked, "queries": 500}, "adapt")

    def make() -> Counter[str]:
        documents = documents_step(out, card, Quiet())
        walk([documents], Heard())
        pipeline = parse(PipelineCard, {**table, "collection": str(documents.folder)}, "mini")
        ws = Workspace(pipeline, out)
        walk([collection_step(ws, card, documents, written_step(ws, card, documents))], Heard())
        return calls.take()

    whole = make()
    numbered(folder, range(1000, 1010))
    more = make()
    assert whole["doc encoded"] == 1000
    assert more["doc encoded"] == 10
    assert whole["written"] == 500
    for name in ("written", "query encoded", "pairs"):
        assert 0 < more[name] <= 0.03 * whole[name], (name, whole, more)
    assert sum(more.values()) <= 0.02 * sum(whole.values()), (whole, more)


def encoder_of(mini: dict[str, Any]) -> str:
    return str(mini["students"]["small"]["options"]["init"])
