"""Bad input: one clear error, before anything runs where that can be, and what was there before unharmed."""

from __future__ import annotations

import json
import os

import pytest
from helpers_pipeline import card_of, evaluate, planned, train
from mini_pipeline import TEST, TRAIN, write_card

from rerankdistill.errors import (
    ArtifactError,
    CardError,
    DamagedArtifact,
    DataError,
    RerankDistillError,
    RerankDistillWarning,
    ScaleError,
    UsageError,
)


@pytest.fixture
def lean(mini):
    """Without the control, and with BM25 alone to mine: what a test about something else needs no more than."""
    mini["students"]["small"]["control"] = "none"
    mini["mine"] = {"depth": 6, "indexes": ["bm25"]}
    return mini


def stage(table):
    return table["students"]["small"]["stages"][0]


def test_a_card_with_three_mistakes_lists_three(lean):
    lean["teecher"] = lean.pop("teacher")
    lean["mine"]["depth"] = 0
    stage(lean)["train"]["learning_rat"] = 1
    with pytest.raises(CardError) as error:
        card_of(lean)
    assert "3 mistakes" in error.value.what
    assert "did you mean 'teacher'" in error.value.what
    assert "did you mean 'learning_rate'" in error.value.what
    assert "mine.depth" in error.value.what


@pytest.mark.parametrize(
    ("change", "near"),
    [
        (lambda t: stage(t).update(loss="kl_dif", options={}), "kl_div"),
        (lambda t: t.update(teacher="minilmm"), "minilm"),
        (lambda t: t["mine"].update(indexes=["bm52"]), "bm25"),
        (lambda t: t["students"]["small"].update(kind="bi_encodr"), "bi_encoder"),
    ],
)
def test_a_name_that_nothing_has_is_refused_with_the_nearest_before_anything_runs(lean, tmp_path, change, near):
    change(lean)
    with pytest.raises(RerankDistillError) as error:
        train(lean, tmp_path / "work")
    assert near in error.value.fix
    assert not (tmp_path / "work").exists()


def recorded(folder, lines, scale="logit"):
    (folder / "scores.tsv").write_text("".join(f"{q}\t{d}\t{s}\n" for q, d, s in lines))
    card = {"name": "given", "kind": "recorded", "scale": scale, "options": {"path": str(folder / "scores.tsv")}}
    return str(write_card(folder / "given.toml", card))


def every_pair(score):
    return [(f"q{q}", f"d{d}", score(q, d)) for q in (*TRAIN, *TEST) for d in range(80)]


def test_ranks_are_refused_by_a_loss_on_differences_before_anything_runs(lean, teachers, tmp_path):
    lean["teacher"] = recorded(teachers, every_pair(lambda q, d: abs(q - d) + 1), scale="rank")
    with pytest.raises(ScaleError, match="rank"):
        train(lean, tmp_path / "work")
    assert not (tmp_path / "work").exists()


def test_recorded_scores_that_are_not_numbers_name_their_line(lean, teachers, tmp_path):
    lean["teacher"] = recorded(teachers, [("q0", "d0", 1.0), ("q1", "d1", "n/a")])
    with pytest.raises(DataError) as error:
        train(lean, tmp_path / "work")
    assert "scores.tsv" in error.value.where
    assert not (tmp_path / "work/students").exists()


def test_constant_teacher_scores_are_told_and_used(lean, teachers, tmp_path):
    lean["teacher"] = recorded(teachers, every_pair(lambda *_: 2.0))
    lean["check"] = {"force": True}  # without, they are refused: see test_checking.py
    with pytest.warns(RerankDistillWarning) as told:
        train(lean, tmp_path / "work")
    assert "same teacher score for every document" in " ".join(str(each.message) for each in told)
    assert (tmp_path / "work/students/small-seed1/modules.json").exists()


def test_a_changed_file_of_recorded_scores_is_scored_again(lean, teachers, tmp_path):
    lean["teacher"] = recorded(teachers, every_pair(lambda q, d: -abs(q - d) / 40))
    lean["check"] = {"force": True}  # the changed file turns the order round
    train(lean, tmp_path / "work")
    recorded(teachers, every_pair(lambda q, d: abs(q - d) / 40))
    wanted = planned(lean, tmp_path / "work", proof=False)
    heard = train(lean, tmp_path / "work")
    assert set(heard.ran) == wanted
    assert {name.split()[0] for name in heard.ran} == {"scores", "examples", "teacher", "student"}
    assert len(list((tmp_path / "work/scores").glob("given-*"))) == 2, "the old scores were overwritten"


def test_other_weights_of_a_teacher_are_another_teacher(lean, teachers, models, tmp_path):
    import shutil

    own = tmp_path / "own"
    shutil.copytree(models / "cross", own)
    card = {"name": "own", "kind": "cross_encoder", "model": str(own), "scale": "logit"}
    lean["check"] = False  # a random model is no teacher
    lean["teacher"] = str(write_card(teachers / "own.toml", card))
    train(lean, tmp_path / "work")
    from rerankdistill.pipeline.workspace import mark_of

    config = json.loads((own / "config.json").read_text())
    (own / "config.json").write_text(json.dumps({**config, "layer_norm_eps": 1e-3}))
    mark_of.cache_clear()  # a new process would hash the folder anew
    heard = train(lean, tmp_path / "work")
    assert "scores own · train" in heard.ran
    assert len(list((tmp_path / "work/scores").glob("own-*"))) == 2


def test_queries_that_nothing_is_found_for_are_left_out_with_a_word(lean, collection, tmp_path):
    with (collection / "queries.jsonl").open("a") as file:
        file.write(json.dumps({"_id": "alien", "text": "xyzzy plugh"}) + "\n")
        file.write(json.dumps({"_id": "lone", "text": "frobnicate"}) + "\n")
    with (collection / "qrels/train.tsv").open("a") as file:
        file.write("alien\td1\t0\nlone\td2\t1\n")
    lean["teacher"] = str(collection.parent / "teachers/lexical.toml")
    with pytest.warns(RerankDistillWarning) as told:
        train(lean, tmp_path / "work")
    said = " ".join(str(each.message) for each in told)
    assert "no candidates and are left out (first: alien)" in said
    assert "a list of one candidate (first: lone)" in said
    assert (tmp_path / "work/students/small-seed1/modules.json").exists()


def test_a_student_folder_that_is_no_model_is_one_clear_error(lean, tmp_path):
    (tmp_path / "empty").mkdir()
    lean["students"]["small"]["options"]["init"] = str(tmp_path / "empty")
    with pytest.raises(DataError, match="not a model folder"):
        train(lean, tmp_path / "work")
    assert not list((tmp_path / "work").rglob("*.part"))


def test_a_run_that_the_collection_lacks_is_named_before_anything_runs(lean, tmp_path):
    lean["mine"]["runs"] = ["splade"]
    with pytest.raises(DataError, match="'splade'"):
        train(lean, tmp_path / "work")


def test_tuning_without_dev_queries_is_refused(lean, tmp_path):
    lean["dev_share"] = 0.0
    stage(lean)["tune"] = {"learning_rate": [1e-4, 1e-3]}
    with pytest.raises(CardError, match="no dev query"), pytest.warns(RerankDistillWarning):
        train(lean, tmp_path / "work")


def test_two_targets_of_one_collection_never_share_a_folder(lean, tmp_path):
    lean["evaluate"] = [{"depth": 50}, {"depth": 50, "mode": "rerank", "rerank_depth": 10}]
    _, reports = evaluate(lean, tmp_path / "work")
    stages = [{row["first_stage"] for row in report["rows"] if row["kind"] == "student"} for report in reports]
    assert stages == [{"full collection"}, {"bm25 top 10"}]
    lean["evaluate"] = [{"depth": 50}, {"depth": 40}]
    with pytest.raises(UsageError, match="two different products"):
        evaluate(lean, tmp_path / "work")


@pytest.mark.parametrize("place", ["examples/*/*.parquet", "candidates/train/*.parquet", "scores/*/part-*.parquet"])
def test_a_truncated_product_says_what_to_delete_and_that_works(lean, tmp_path, place):
    import shutil

    out = tmp_path / "work"
    train(lean, out)
    victim = next(out.glob(place))
    victim.write_bytes(victim.read_bytes()[: victim.stat().st_size // 2])
    stage(lean)["list_size"] = 3  # the student is trained anew, from what is damaged
    if not place.startswith("examples"):
        shutil.rmtree(out / "examples")
    with pytest.raises(DamagedArtifact) as error:
        train(lean, out)
    assert error.value.fix
    shutil.rmtree(victim.parent)
    train(lean, out)
    assert (out / "students/small-seed1/modules.json").exists()


def test_deleted_scores_are_made_again_though_the_list_of_them_is_fresh(lean, tmp_path):
    import shutil

    out = tmp_path / "work"
    train(lean, out)
    shutil.rmtree(out / "scores")
    shutil.rmtree(out / "examples")
    train(lean, out)
    assert list((out / "scores").glob("tiny-bi-*"))


def test_a_full_disk_leaves_the_old_product_whole(lean, tmp_path, monkeypatch):
    import pyarrow.parquet

    out = tmp_path / "work"
    train(lean, out)
    before = {path: path.read_bytes() for path in (out / "candidates").rglob("*") if path.is_file()}
    lean["mine"]["depth"] = 5

    def full(table, where, *_, **__):
        with open(where, "wb") as file:  # noqa: PTH123
            file.write(b"half of")
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(pyarrow.parquet, "write_table", full)
    with pytest.raises(ArtifactError, match="No space left"):
        train(lean, out)
    monkeypatch.undo()
    assert {path: path.read_bytes() for path in (out / "candidates").rglob("*") if path.is_file()} == before
    assert not list(out.rglob(".*.part"))
    train(lean, out)


def test_a_killed_encoding_loses_one_shard_at_most(lean, tmp_path, monkeypatch):
    from rerankdistill.pipeline import vectors
    from rerankdistill.pipeline.vectors import Model

    monkeypatch.setattr(vectors, "SHARD", 10)
    encode, asked = Model.encode, []

    class Killed(BaseException):
        pass

    def fragile(self, ws, texts, role, advance):
        if role == "doc":
            asked.append(len(texts))
            if len(asked) == 6:
                raise Killed
        return encode(self, ws, texts, role, advance)

    monkeypatch.setattr(Model, "encode", fragile)
    lean["mine"]["indexes"] = ["flat"]
    with pytest.raises(Killed):
        train(lean, tmp_path / "work")
    assert len(list((tmp_path / "work/partial").rglob("*.npy"))) == 5
    train(lean, tmp_path / "work")
    assert sum(asked) == 90, "eighty documents, and the ten of the shard that was lost"
    assert not list((tmp_path / "work/partial").rglob("*.npy"))
