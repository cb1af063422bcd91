"""Each number says what kind of evidence it is; a second teacher judges, agrees, or is followed; a student goes on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import tomlkit
from test_adapt import LOOSE, folder, pipeline, queries_of, run

from rerankdistill.cards import parse
from rerankdistill.errors import CardError, DataError, UsageError
from rerankdistill.pipeline.reading import AdaptCard
from rerankdistill.pipeline.writers import ByModel, foretold
from rerankdistill.queries.generate import Request
from rerankdistill.queries.styles import StyleCard
from rerankdistill.scores.card import Context, ScorerCard
from rerankdistill.types import Doc

__all__ = ["folder", "pipeline"]


def reports(found: Any) -> dict[str, dict[str, Any]]:
    read = [json.loads((each / "report.json").read_text("utf-8")) for each in found.reports]
    return {f"{each['collection']}/{each['split']}": each for each in read}


def test_every_report_says_what_its_numbers_are_made_of(
    folder: Path, pipeline: str, teachers: Path, collection: Path, tmp_path: Path
) -> None:
    more = {"second_teacher": str(teachers / "lexical.toml"), "sift": {**LOOSE, "agree": True}}
    _, found = run(folder, pipeline, tmp_path / "out", (str(collection),), **more)
    told = {name: report["notes"][0] for name, report in reports(found).items()}
    assert [*told] == ["judged/test", "judged/by-fused", "judged/by-lexical", "towns/test"]
    assert [note.removeprefix("Evidence: ")[:12] for note in told.values()] == [
        "generated. T", "judged by fu", "judged by le", "people's jud",
    ]  # fmt: skip
    assert "took no part in training" in told["judged/by-lexical"]
    rows = {row["name"]: row["measures"]["ndcg@10"] for row in reports(found)["judged/by-fused"]["rows"]}
    assert rows["teacher fused"] == pytest.approx(1.0), "a teacher agrees with itself"
    sieve = found.funnel[-1]
    assert sieve["name"] == "second teacher agrees"
    assert 0 < sieve["passed"] < sieve["came"]


def test_judged_documents_are_left_out_and_else_the_report_says_transductive(
    pipeline: str, collection: Path, tmp_path: Path
) -> None:
    name = str(collection)
    for leave in (False, True):
        out = tmp_path / f"out{leave}"
        _, found = run(collection, pipeline, out, (name,), leave_out_judged=leave)
        [note] = [report["notes"][1] for split, report in reports(found).items() if split == "towns/test"]
        assert note.startswith("The documents that its judgements" if leave else "Transductive")
        ids = {json.loads(line)["_id"] for line in (out / "documents/corpus.jsonl").read_text("utf-8").splitlines()}
        assert ("d45" in ids) is not leave, "judged in the test"
        assert "d5" in ids
    with pytest.raises(CardError, match="only of a collection"):
        run(tmp_path / "files", pipeline, tmp_path / "x", leave_out_judged=True)


def test_the_teacher_may_choose_another_positive_and_the_rate_is_told(
    folder: Path, pipeline: str, tmp_path: Path
) -> None:
    _, found = run(folder, pipeline, tmp_path / "out", relabel=True, sift={"round_trip": 0})
    assert "teacher first" not in [sieve["name"] for sieve in found.funnel]
    notes = reports(found)["judged/test"]["notes"]
    assert any("the teacher's first document took the place of" in note for note in notes)


def test_a_student_in_use_is_trained_on_and_its_churn_is_told(folder: Path, pipeline: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    _, found = run(folder, pipeline, out)
    with pytest.raises(UsageError, match="overwritten"):
        run(folder, pipeline, out, continue_from=str(found.students[0]))
    with pytest.raises(DataError, match="no student here"):
        run(folder, pipeline, out, continue_from=str(folder))
    shutil.copytree(found.students[0], tmp_path / "deployed")
    before = queries_of(out)
    (folder / "new.md").write_text("# A new lighthouse\n\nIt was built last year on the rocks of the northern cape.\n")
    heard, found = run(folder, pipeline, out, continue_from=str(tmp_path / "deployed"), keep=0.5)
    assert "student small (seed 1)" in heard.ran
    rows = {row["name"]: row for row in reports(found)["judged/test"]["rows"]}
    assert rows["small before"]["churn@10"] == 0
    assert 0 < rows["bm25"]["churn@10"] <= 1
    assert "teacher fused-kept" in rows
    card = (out / "cards/fused-kept.toml").read_text("utf-8")
    assert "weights = [0.25, 0.25, 0.5]" in card
    assert len(set(queries_of(out).items()) & set(before.items())) >= 0.8 * len(before)
    again, _ = run(folder, pipeline, out, continue_from=str(tmp_path / "deployed"), keep=0.5)
    assert again.ran == {}


def test_a_query_encoder_in_use_goes_on_and_its_documents_stay(
    folder: Path, mini: dict[str, Any], tmp_path: Path
) -> None:
    from sentence_transformers import SentenceTransformer

    mini["students"]["small"] |= {"kind": "query_tower", "control": "none"}
    path = tmp_path / "tower.toml"
    path.write_text(tomlkit.dumps({**mini, "name": "tower", "check": False}), "utf-8")
    _, first = run(folder, str(path), tmp_path / "out")
    shutil.copytree(first.students[0], tmp_path / "deployed")
    _, found = run(folder, str(path), tmp_path / "out", continue_from=str(tmp_path / "deployed"))
    old, new = (SentenceTransformer(str(each), device="cpu") for each in (tmp_path / "deployed", found.students[0]))
    texts = ["the mill of the northern cape"]
    assert (old.encode_document(texts) == new.encode_document(texts)).all()
    assert (old.encode_query(texts) != new.encode_query(texts)).any()


def test_options_that_lack_their_other_half_are_refused() -> None:
    for table in ({"keep": 0.3}, {"sift": {"agree": True}}):
        with pytest.raises(CardError, match="it needs"):
            parse(AdaptCard, {"docs": "x", **table}, "adapt")


class Written:
    """A language model that cuts nothing."""

    fingerprint = "m"

    def write(self) -> None: ...

    def fit(self, text: str, limit: int) -> str:
        return text[: 4 * limit]


def test_what_generation_will_take_is_said_beforehand(monkeypatch: pytest.MonkeyPatch) -> None:
    about = {"price_per_million_prompt": 2.0, "price_per_million_generated": 10.0}
    card = ScorerCard.model_validate({"name": "w", "kind": "causal", "model": "m", "scale": "logit", "options": about})
    writer = ByModel(card, Context(), 0.7, 1)
    monkeypatch.setitem(writer.__dict__, "model", Written())
    style = StyleCard(name="q", prompt="Ask about it: {passage}")
    new = [Request(Doc(f"d{n}", "word " * 160), style) for n in range(1000)]
    [line] = foretold(writer, new, 1200, 0.6)
    assert line == (
        "1,000 of 1,200 queries to write: about 219,000 tokens of prompts, 48,000 at most to be written; "
        "about 10.0 minutes at the pace of last time; at most about 0.92 of money at the card's prices"
    )
    assert list(foretold(writer, [], 1200, None)) == []
