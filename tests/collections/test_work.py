"""A folder that forgets what it is about can be searched by nobody but its maker."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rerankdistill.collections.work import WORK, recall, remember
from rerankdistill.errors import DamagedArtifact, MissingArtifact
from rerankdistill.types import View


def corpus(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "corpus.jsonl").write_text(json.dumps({"_id": "a", "title": "T", "text": "rain"}) + "\n", "utf-8")
    (folder / "queries.jsonl").write_text(json.dumps({"_id": "q", "text": "wet"}) + "\n", "utf-8")
    return folder


def test_a_work_folder_that_was_moved_still_finds_the_collection_inside_it(tmp_path):
    remember(tmp_path / "work", str(corpus(tmp_path / "work/collection")), {}, View.TEXT)
    (tmp_path / "work").rename(tmp_path / "elsewhere")
    found = recall(tmp_path / "elsewhere")
    assert found.view is View.TEXT
    assert list(found.source.doc_ids()) == ["a"]


def test_a_collection_outside_is_found_from_any_current_folder(tmp_path, monkeypatch):
    corpus(tmp_path / "docs")
    monkeypatch.chdir(tmp_path)
    remember(tmp_path / "work", "docs", {}, View.TITLE_TEXT)
    monkeypatch.chdir(tmp_path / "work")
    assert list(recall(tmp_path / "work").source.doc_ids()) == ["a"]


def test_a_folder_that_does_not_say_takes_the_collection_that_is_named(tmp_path):
    with pytest.raises(MissingArtifact, match="which collection"):
        recall(tmp_path)
    assert recall(tmp_path, str(corpus(tmp_path / "docs"))).source.name == "docs"


@pytest.mark.parametrize("text", ["{", "[]", '{"collection": "docs"}', '{"collection":"x","splits":{},"view":"y"}'])
def test_a_damaged_note_is_no_traceback(tmp_path, text):
    (tmp_path / WORK).write_text(text, "utf-8")
    with pytest.raises(DamagedArtifact):
        recall(tmp_path)
