"""``teachers measure`` and ``train --force``: what is printed where, and which exit code."""

from __future__ import annotations

import json

import pytest


@pytest.fixture
def card(tmp_path):
    path = tmp_path / "words.toml"
    path.write_text('name = "words"  # BM25\nkind = "lexical"\nscale = "lexical"\n')
    return path


def given(tmp_path, collection, score):
    rows = [f"q{q}\td{d}\t{score(q, d)}" for q in range(30) for d in range(60)]
    (tmp_path / "scores.tsv").write_text("\n".join(rows) + "\n")
    path = tmp_path / "given.toml"
    path.write_text(
        f'name = "given"\nkind = "recorded"\nscale = "logit"\noptions = {{ path = "{tmp_path / "scores.tsv"}" }}\n'
    )
    return path


def test_a_table_of_every_card_and_the_verdicts_in_full(call, card, collection, tmp_path):
    bad = given(tmp_path, collection, lambda q, d: 1.0)
    done = call("teachers", "measure", card, bad, "--collection", collection, "--depth", 6, "--out", tmp_path / "w")
    assert done.code == 0, done.err
    for word in ("words", "given", "lexical", "nDCG@10", "pairs/s", "given: do not distil: it is constant"):
        assert word in done.out
    assert "scores given" in done.err


def test_json_is_alone_on_stdout_and_a_bad_teacher_is_no_error(call, card, collection, tmp_path):
    common = (
        "--collection",
        collection,
        "--depth",
        6,
        "--out",
        tmp_path / "w",
        "--json",
        "--pairs",
        500_000_000,
        "--tau",
        2,
    )
    done = call("teachers", "measure", card, *common, "--write")
    assert done.code == 0, done.err
    (found,) = json.loads(done.out)
    assert found["findings"]["tau"] == 2
    assert found["seconds_ahead"] > 0
    assert "# BM25" in card.read_text()
    assert "[measured]" in card.read_text()
    assert call("teachers", "check", card).code == 0
    bad = given(tmp_path, collection, lambda q, d: float(q != d))
    done = call("teachers", "measure", bad, *common)
    assert (done.code, json.loads(done.out)[0]["grade"]) == (0, "do not distil")


def test_mistakes_are_told_before_anything_is_scored(call, card, collection, tmp_path):
    for arguments, code, words in (
        (("bm25", "--collection", collection, "--write"), 2, "teachers copy bm25"),
        (("bm52", "--collection", collection), 5, "did you mean 'bm25'?"),
        ((card, "--collection", tmp_path / "none"), 5, "no such folder"),
        ((card, "--collection", collection, "--run", "best"), 2, "no run is called 'best'"),
        ((card, "--collection", collection, "--tau", 0), 2, "above 0"),
        ((card, "--collection", collection, "--split", "dev"), 2, "it has train, test"),
    ):
        done = call("teachers", "measure", *arguments, "--out", tmp_path / "w")
        assert (done.code, words in done.err, done.out) == (code, True, ""), done.err
    assert not (tmp_path / "w/scores").exists()


@pytest.mark.filterwarnings("ignore::rerankdistill.errors.RerankDistillWarning")
def test_train_refuses_with_six_and_force_trains(call, pipeline, collection, tmp_path):
    bad = given(tmp_path, collection, lambda q, d: float(q != d) + d / 100)
    out = ("--teacher", bad, "--out", tmp_path / "w")
    done = call("train", pipeline, *out)
    assert done.code == 6, done.err
    assert "do not distil" in done.err
    assert "--force" in done.err
    done = call("train", pipeline, *out, "--force")
    assert done.code == 0, done.err
    assert (tmp_path / "w/students/tiny-seed1/modules.json").exists()
