"""Stages that match the vectors of one or several teachers, of whatever dimension."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from helpers_pipeline import train
from mini_pipeline import VOCABULARY, write_card
from tiny_models import tiny_bi_encoder

from rerankdistill.errors import CardError
from rerankdistill.pipeline.vectors import Chained, Joined

LOSS = "10 embed_cosine + 200 similarity_mse"


@pytest.fixture
def narrow(teachers, tmp_path):
    """A teacher of 12 dimensions."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Dense

    model = SentenceTransformer(str(tiny_bi_encoder(tmp_path / "other", VOCABULARY, seed=7)), device="cpu")
    model.append(Dense(32, 12))
    model.save_pretrained(str(tmp_path / "narrow"), create_model_card=False)
    card = {"name": "tiny-narrow", "kind": "bi_encoder", "model": str(tmp_path / "narrow"), "scale": "similarity"}
    return write_card(teachers / "narrow.toml", card)


@pytest.fixture
def taught(mini, teachers, narrow):
    """A function: the miniature with one matching stage in front."""

    def with_stage(match=(str(teachers / "bi.toml"), str(narrow)), **fields):
        small = mini["students"]["small"]
        stage = {"match": list(match), "loss": LOSS, "train": {"steps": 3, "batch": 8}, **fields}
        small["stages"], small["control"], mini["check"] = [stage], "none", False
        return mini

    return with_stage


def dimension(out: Path) -> int:
    from sentence_transformers import SentenceTransformer

    return int(SentenceTransformer(str(out / "students/small-seed1"), device="cpu").get_embedding_dimension())


def test_several_teachers_vectors_are_normalised_put_side_by_side_and_normalised_again():
    chance = np.random.default_rng(0)
    one, other = chance.normal(size=(6, 3)), 100 * chance.normal(size=(6, 5))
    found = Joined([Chained([one[:2], one[2:]]), Chained([other])])[[4, 0, 1]]
    assert found.shape == (3, 8)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    for row, at in enumerate((4, 0, 1)):
        for part, mine in ((found[row, :3], one[at]), (found[row, 3:], other[at])):
            np.testing.assert_allclose(part * 2**0.5, mine / np.linalg.norm(mine), atol=1e-6)


def test_two_teachers_are_matched_through_a_layer_that_is_gone_afterwards(taught, tmp_path):
    heard = train(taught(), tmp_path / "work")
    assert {"vectors tiny-bi · docs", "vectors tiny-narrow · docs"} <= set(heard.ran)
    assert dimension(tmp_path / "work") == 32


def test_a_kept_layer_gives_the_student_both_teachers_dimensions_and_the_next_stage_goes_on_with_it(taught, tmp_path):
    card = taught(keep_projection=True)
    lists = {"options": {"kl_div": {"tau_student": 0.1}}, "list_size": 4, "train": {"steps": 2, "batch": 4}}
    card["students"]["small"]["stages"].append(lists)
    train(card, tmp_path / "work")
    assert dimension(tmp_path / "work") == 44
    modules = json.loads((tmp_path / "work/students/small-seed1/modules.json").read_text())
    assert modules[-1]["type"].endswith("Dense")


def test_dimensions_that_differ_are_refused_where_no_layer_is_wanted(taught, tmp_path):
    with pytest.raises(CardError, match=r"(?s)embed_cosine compares.* 32, the teacher's 44.*learned projection"):
        train(taught(project=False), tmp_path / "work")
    with pytest.raises(CardError, match="8, the teacher's 44"):
        train(taught(project=8), tmp_path / "other")


def test_a_head_shortens_vectors_by_relations_alone(taught, tmp_path):
    train(taught(loss="similarity_mse", project=8, keep_projection=True, project_only=True), tmp_path / "work")
    assert dimension(tmp_path / "work") == 8


def test_relations_need_no_layer(taught, tmp_path):
    train(taught(loss="similarity_mse", keep_projection=False), tmp_path / "work")
    assert dimension(tmp_path / "work") == 32


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"project": False, "keep_projection": True}, "no projection to keep"),
        ({"level": "hidden"}, "looks into one model"),
        ({"match": (), "queue": 8, "loss": "kl_div"}, "queue: only a stage that matches"),
    ],
)
def test_wishes_that_contradict_each_other_are_mistakes_of_the_card(taught, tmp_path, fields, told):
    with pytest.raises(CardError, match=told):
        train(taught(**fields), tmp_path / "work")


def test_a_student_that_has_no_vectors_is_told_so(taught, models, tmp_path):
    card = taught()
    card["students"]["small"] |= {"kind": "cross_encoder", "options": {"init": str(models / "cross")}}
    with pytest.raises(CardError, match="no vector of a text"):
        train(card, tmp_path / "work")
