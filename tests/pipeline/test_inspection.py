"""Teachers measured side by side: on the same candidates, from one store, on test queries only where asked."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers_pipeline import Heard, card_of
from mini_pipeline import TEST, write_card

from rerankdistill.collections.folder import FolderCollection
from rerankdistill.collections.load import load_collection
from rerankdistill.errors import DataError, UsageError
from rerankdistill.pipeline.inspection import Task, choose_queries, choose_split, measure_teachers, pairs_ahead
from rerankdistill.pipeline.measured import own_card, write_measured
from rerankdistill.types import Query, Scale, View


@pytest.fixture
def task(collection, models):
    return Task(str(collection), depth=6, student=str(models / "student"), pairs=1000, device="cpu")


def test_several_teachers_stand_side_by_side_and_nothing_is_scored_twice(task, teachers, tmp_path, monkeypatch):
    read = FolderCollection._read_judgements

    def watched(self, split):
        assert split != "test"
        return read(self, split)

    monkeypatch.setattr(FolderCollection, "_read_judgements", watched)
    names = [str(teachers / f"{name}.toml") for name in ("lexical", "bi", "fused")]
    heard = Heard()
    lexical, bi, fused = measure_teachers(names, task, tmp_path / "work", heard)
    assert [each.name for each in (lexical, bi, fused)] == ["lexical", "bi", "fused"]
    assert [each.kind for each in (lexical, bi, fused)] == ["lexical", "bi_encoder", "ensemble"]
    assert (fused.scale, lexical.on["split"]) == ("zscore", "train")
    assert lexical.findings.ndcg > bi.findings.ndcg
    assert lexical.findings.taus["bi"] == pytest.approx(bi.findings.taus["lexical"])
    assert {each.findings.ndcg_student for each in (lexical, bi, fused)} == {fused.findings.ndcg_student}
    assert lexical.findings.ndcg_first == pytest.approx(lexical.findings.ndcg), "its first stage is BM25 itself"
    assert bi.seconds_ahead == pytest.approx(1000 / bi.pairs_per_second, abs=0.06), "to a tenth of a second"
    assert bi.memory_mb > 10
    json.dumps([each.as_dict() for each in (lexical, bi, fused)], allow_nan=False)

    again = Heard()
    found = measure_teachers(names, task, tmp_path / "work", again)
    assert not again.ran, "what is fresh is skipped"
    assert [each.findings for each in found] == [lexical.findings, bi.findings, fused.findings]


def test_a_run_may_be_a_file_of_the_collections_or_an_index(task, collection, teachers, tmp_path):
    rows = [f"q{n} Q0 d{m} {rank} {9 - rank} mine" for n in range(70) for rank, m in enumerate((n, n + 3, n + 5), 1)]
    file = tmp_path / "mine.trec"
    file.write_text("\n".join(rows) + "\n")
    lexical = [str(teachers / "lexical.toml")]

    def measured(**changes):
        about = {"collection": str(collection), "depth": 3, "device": "cpu", **changes}
        return measure_teachers(lexical, Task(**about), tmp_path / "work")[0]

    assert measured(run=str(file)).findings.pairs == 40 * 3
    few = measured(run=str(file), queries=7, split="test")
    assert (few.findings.queries, few.on["run"], few.on["split"]) == (7, "mine", "test")
    with pytest.raises(UsageError, match="no run is called 'mined'"):
        measured(run="mined")
    with pytest.raises(UsageError, match="no judged split 'dev'"):
        measured(split="dev")
    file.write_text("nobody Q0 d1 1 9 mine\n")
    with pytest.raises(DataError, match="nothing for any of the judged queries"):
        measured(run=str(file))


def test_which_queries_are_looked_at_does_not_hang_on_the_others(collection):
    queries = [Query(f"q{n}", "") for n in range(50)]
    some = choose_queries(queries, 10, 1)
    assert some == choose_queries(queries[::-1], 10, 1) != choose_queries(queries, 10, 2)
    fewer = [query for query in queries if query not in some[:3]]
    assert choose_queries(fewer, 7, 1) == some[3:]
    assert choose_split(load_collection(str(collection)), "") == "train"


class Moody:
    """A listwise teacher that puts first whatever stands first: the order of asking decides."""

    from rerankdistill.cards import Card as Options

    unit, needs_texts, scale, view, fingerprint = "list", True, Scale.LOGIT, View.TITLE_TEXT, "moody"

    @classmethod
    def open(cls, card, context):
        return cls()

    def judge(self, groups):
        return [-np.arange(len(group.doc_ids), dtype=np.float32) for group in groups]


def test_a_listwise_teacher_is_asked_in_another_order_too(collection, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "moody_teacher", type(sys)("moody_teacher"))
    sys.modules["moody_teacher"].Kind = Moody
    card = write_card(tmp_path / "moody.toml", {"name": "moody", "kind": "moody_teacher:Kind", "scale": "logit"})
    (found,) = measure_teachers([str(card)], Task(str(collection), depth=6, device="cpu"), tmp_path / "work")
    assert found.findings.order_tau < 0.5
    assert "unsteady" in found.verdict.names


def test_what_was_measured_goes_into_the_users_card_and_its_comments_stay(task, teachers, tmp_path):
    path = teachers / "lexical.toml"
    path.write_text("# mine\n" + path.read_text() + 'licence = "own"  # nobody else\'s\n\n[measured]\n"other" = 0.5\n')
    (found,) = measure_teachers([str(path)], task, tmp_path / "work")
    write_measured(own_card(str(path)), found)
    text = path.read_text()
    assert text.startswith("# mine\n")
    assert "# nobody else's" in text
    assert '"other" = 0.5' in text or "other = 0.5" in text
    assert f'"towns train ndcg@10" = {found.findings.ndcg:.4g}' in text
    before = text
    write_measured(path, found)
    assert path.read_text() == before, "measuring again overwrites, and adds nothing"
    (again,) = measure_teachers([str(path)], task, tmp_path / "work")
    assert again.findings == found.findings, "what was measured decides nothing"


def test_a_shipped_card_is_never_written():
    for name in ("minilm", str(Path(__file__).parents[2] / "teachers/minilm.toml")):
        with pytest.raises(UsageError, match="shipped") as error:
            own_card(name)
        assert "teachers copy minilm" in error.value.fix


def test_the_job_ahead_is_counted_where_it_is_known(mini, tmp_path):
    most = pairs_ahead(card_of(mini), tmp_path / "work")
    assert most == 40 * 12 * 2
    from rerankdistill.pipeline import verbs

    (folder,) = verbs.part_way(card_of(mini), tmp_path / "work", "candidates")
    counted = json.loads((folder / "manifest.json").read_text())["counts"]["pairs"]
    assert pairs_ahead(card_of(mini), tmp_path / "work") == counted <= most
    assert len(TEST) == 30


@pytest.mark.realdata
@pytest.mark.model
@pytest.mark.slow  # every abstract is encoded
def test_the_fused_scorer_is_good_on_scifact_and_a_student_in_it_is_no_copy(data, minilm, tmp_path):
    task = Task(str(data / "scifact"), split="train", queries=40, depth=20, student=minilm, device="cpu")
    fused, lone = measure_teachers(["bm25+minilm", "minilm"], task, tmp_path / "work")
    assert fused.verdict.words == "good", fused.verdict.words
    assert fused.findings.ndcg > fused.findings.ndcg_first
    assert lone.verdict.names[0] == "copy"
