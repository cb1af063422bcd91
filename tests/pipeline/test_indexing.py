"""Indexes apart from any pipeline, by the command line: built, kept up to date, verified, and proposed."""

from __future__ import annotations

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from rerankdistill import artifacts
from rerankdistill.cli.app import app
from rerankdistill.cli.indexes import bytes_of
from rerankdistill.collections.load import load_collection
from rerankdistill.errors import DamagedArtifact, DataError, StaleArtifact, UsageError
from rerankdistill.index.build import open_index
from rerankdistill.kinds import open_kind
from rerankdistill.pipeline.advising import Wish, advise
from rerankdistill.pipeline.step import Quiet

WORDS = ["rain", "sun", "cloud", "wind", "cat", "dog", "bird", "fish", "stock", "bond", "market", "engine"]


def write_docs(path, docs):
    path.write_text("".join(json.dumps({"_id": name, "text": text}) + "\n" for name, text in docs.items()), "utf-8")


@pytest.fixture
def place(tmp_path):
    """A collection of 60 documents."""
    chance = np.random.default_rng(0)
    docs = {f"d{n}": " ".join(chance.choice(WORDS, 6)) for n in range(60)}
    (tmp_path / "c").mkdir()
    write_docs(tmp_path / "c" / "corpus.jsonl", docs)
    (tmp_path / "c" / "queries.jsonl").write_text('{"_id": "q", "text": "rain"}\n', "utf-8")
    return tmp_path, docs


def run(*arguments):
    done = CliRunner().invoke(app, ["indexes", *map(str, arguments)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_an_index_follows_its_collection_and_counts_as_built_of_it(place, tiny_bert):
    home, docs = place
    said = run("build", home / "x", "--card", "hnsw", "--collection", home / "c", "--model", tiny_bert)
    assert "60 documents" in said
    changed = {"d3": "engine engine", "new": "market bond"}
    write_docs(home / "changes.jsonl", changed)
    (home / "gone.txt").write_text("d5\nd6\n", "utf-8")
    arguments = ("--documents", home / "changes.jsonl", "--delete", home / "gone.txt", "--model", tiny_bert)
    with pytest.raises(DataError, match="documents differ"):
        run("update", home / "x", *arguments, "--collection", home / "c")
    now = {name: text for name, text in {**docs, **changed}.items() if name not in ("d5", "d6")}
    write_docs(home / "c" / "corpus.jsonl", now)
    told = run("update", home / "x", *arguments, "--collection", home / "c")
    assert told.strip() == "1 added, 1 replaced, 2 deleted, 0 unknown, 59 documents"
    assert artifacts.read(home / "x", "index").inputs["docs"] == load_collection(str(home / "c")).docs_fingerprint()
    assert {*open_index(home / "x", open_kind("index", "hnsw")).ids.alive} == {*now}
    assert "whole; hnsw, 59 documents" in run("verify", home / "x")


def test_another_model_is_not_let_at_an_index_and_none_is_asked_for(place, tiny_bert, tmp_path):
    home, _ = place
    run("build", home / "x", "--card", "flat", "--collection", home / "c", "--model", tiny_bert)
    write_docs(home / "changes.jsonl", {"new": "rain"})
    with pytest.raises(StaleArtifact, match="filled by encoder"):
        run("update", home / "x", "--documents", home / "changes.jsonl", "--model", tiny_bert, "--doc-tokens", 8)
    with pytest.raises(UsageError, match="--model"):
        run("update", home / "x", "--documents", home / "changes.jsonl")
    with pytest.raises(UsageError, match="nothing to do"):
        run("update", home / "x")
    path = home / "x" / "index.faiss"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(DamagedArtifact, match=r"index\.faiss"):
        run("verify", home / "x")


def test_what_is_proposed_keeps_within_memory_and_time_and_finds_most(tmp_path):
    chance = np.random.default_rng(0)
    vectors = chance.normal(size=(60, 64))[chance.integers(0, 60, 1200)] + 0.6 * chance.normal(size=(1200, 64))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    cards = ("flat", "sq8", "binary", "flat-disk")
    room = Wish(1_000_000, 1e12, 1e9)
    trials, best = advise(room, vectors, cards, Quiet())
    by_name = {each.card: each for each in trials}
    assert best is not None
    assert best.recall >= 0.99
    assert by_name["flat"].recall == 1.0
    assert by_name["sq8"].recall > 0.9
    assert 300e6 < by_name["flat"].memory < 400e6, "256 MB of vectors and the ids"
    assert by_name["flat-disk"].memory < by_name["binary"].memory < by_name["sq8"].memory < by_name["flat"].memory
    assert by_name["flat-disk"].disk > 256e6
    tight = Wish(1_000_000, 200e6, 1e9)
    _, found = advise(tight, vectors, ("flat", "sq8"), Quiet())
    assert found is not None
    assert found.card == "sq8"
    assert by_name["flat"].misses(Wish(1_000_000, 200e6, 0)) == "memory and time"
    assert advise(Wish(1_000_000, 1e6, 50), vectors, ("sq8",), Quiet())[1] is None
    with pytest.raises(DataError, match="500 at least"):
        advise(room, vectors[:100], cards, Quiet())
    np.save(tmp_path / "v.npy", vectors)
    said = run("advise", "--documents", 1000, "--memory", "1GB", "--vectors", tmp_path / "v.npy",
               "--cards", "flat", "--latency", 1e6, "-o", tmp_path / "mine.toml", "--sample", 500)  # fmt: skip
    assert "proposed: flat" in said
    assert 'kind = "flat"' in (tmp_path / "mine.toml").read_text()


def test_sizes_are_read_as_people_write_them():
    assert [bytes_of(text) for text in ("512", "500MB", "1.5 GB", "8GiB", "2t")] == [512, 5e8, 1.5e9, 8e9, 2e12]
    for text in ("", "many", "1.2.3GB", "."):
        with pytest.raises(UsageError, match="is no size"):
            bytes_of(text)
