"""Every shipped card is read, checked against its kind, and named as its file."""

from __future__ import annotations

import json

import pytest

from rerankdistill import kinds
from rerankdistill.cards import list_cards, parse
from rerankdistill.errors import CardError
from rerankdistill.scores.card import (
    YOUNGER,
    EnsembleCard,
    ScorerCard,
    load_members,
    load_placed,
    load_teacher,
    parse_teacher,
    teacher_scale,
)
from rerankdistill.types import Scale

SCORER = {"name": "x", "kind": "lexical", "scale": "lexical"}


@pytest.mark.parametrize("name", list_cards("teachers"))
def test_a_shipped_card_is_whole(name):
    card = load_teacher(name)
    assert card.name == name
    assert card.description
    assert card.licence
    for member in load_members(name):
        kind = kinds.open_kind("scores", member.kind)
        parse(kind.Options, member.options, member.name)
        assert getattr(kind, "scale", member.scale) == member.scale
    if isinstance(card, ScorerCard) and card.kind == "cross_encoder":
        assert len(card.revision) == 40, "a cross-encoder's weights must not change under a card"


def test_the_offline_default_is_bm25_and_minilm_standardised():
    card = load_teacher("bm25+minilm")
    assert isinstance(card, EnsembleCard)
    assert card.members == ("bm25", "minilm")
    assert teacher_scale("bm25+minilm") is Scale.ZSCORE
    assert teacher_scale("minilm") is Scale.SIMILARITY


def test_three_mistakes_are_reported_at_once_with_what_was_meant():
    with pytest.raises(CardError) as error:
        parse_teacher({"name": "x", "kind": "lexical", "scal": "logit", "view": "titel"}, "x.toml")
    text = str(error.value)
    assert "3 mistakes" in text
    assert "did you mean 'scale'" in text
    assert "view" in text


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"members": ["bm25"]}, "members"),
        ({"members": ["bm25", "bm25"]}, "named twice"),
        ({"members": ["bm25", "minilm"], "weights": [1]}, "1 weights for 2"),
        ({"members": ["bm25", "minilm"], "weights": [1, 0]}, "positive"),
        ({"members": ["bm25", "minilm"], "weights": [1, float("nan")]}, "positive"),
        ({"members": ["bm25", "minilm"], "combine": "borda"}, "combine"),
        ({"members": ["bm25", "minilm"], "weights_by": "labels"}, "weights_by"),
        ({"members": ["bm25", "minilm"], "percentiles": [99, 1]}, "rising"),
        ({"members": ["bm25", "minilm"], "scale": "logit"}, "scale"),
    ],
)
def test_an_ensemble_that_cannot_be_is_refused(extra, message):
    with pytest.raises(CardError, match=message):
        parse_teacher({"name": "e", "kind": "ensemble", **extra}, "e.toml")


def test_no_scorer_stores_z_scores():
    with pytest.raises(CardError, match="raw scores are never z-scores"):
        parse_teacher({**SCORER, "scale": "zscore"}, "x.toml")


def test_raw_scores_of_two_scales_are_not_averaged_and_ensembles_do_not_nest(tmp_path):
    card = tmp_path / "mine.toml"
    card.write_text('name = "mine"\nkind = "ensemble"\ncombine = "raw"\nmembers = ["bm25", "minilm"]\n')
    with pytest.raises(CardError, match="lexical, similarity"):
        load_members(str(card))
    card.write_text('name = "mine"\nkind = "ensemble"\nmembers = ["bm25", "bm25+minilm"]\n')
    with pytest.raises(CardError, match="ensemble itself"):
        load_members(str(card))


def test_a_member_is_found_beside_its_ensemble(tmp_path):
    (tmp_path / "own.toml").write_text('name = "own"\nkind = "bi_encoder"\nmodel = "m"\nscale = "similarity"\n')
    (tmp_path / "mine.toml").write_text('name = "mine"\nkind = "ensemble"\nmembers = ["bm25", "own.toml"]\n')
    assert [card.name for card in load_members(str(tmp_path / "mine.toml"))] == ["bm25", "own"]


def write(path, **fields):
    path.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in fields.items()), "utf-8")
    return str(path)


@pytest.fixture
def ranked(tmp_path):
    """An ensemble, by its fields, of BM25 and a teacher that only gives an order."""
    write(tmp_path / "order.toml", name="order", kind="recorded", scale="rank")
    return lambda **more: write(tmp_path / "e.toml", name="e", kind="ensemble", members=["bm25", "order.toml"], **more)


def test_orders_are_fused_by_reciprocal_rank_or_made_numbers_of_and_else_refused(ranked):
    for combine in ("zscore", "raw"):
        with pytest.raises(CardError, match="order only gives an order") as refused:
            load_members(ranked(combine=combine))
        assert "combine = 'rrf'" in refused.value.fix
        assert "rank_to_score" in refused.value.fix
    assert teacher_scale(ranked(combine="rrf")) is Scale.RANK
    assert teacher_scale(ranked(combine="rrf", rank_to_score="depth")) is Scale.GRADE
    assert teacher_scale(ranked(rank_to_score="depth")) is Scale.ZSCORE


def test_a_members_own_calibration_is_no_part_of_an_ensemble(tmp_path):
    write(tmp_path / "own.toml", name="own", kind="bi_encoder", model="m", scale="similarity", calibrate="zscore")
    name = write(tmp_path / "e.toml", name="e", kind="ensemble", members=["bm25", "own.toml"])
    with pytest.raises(CardError, match="own says how to calibrate"):
        load_members(name)
    assert teacher_scale(str(tmp_path / "own.toml")) is Scale.ZSCORE


def test_a_card_without_the_younger_fields_says_what_it_always_said():
    card = parse_teacher(SCORER, "x.toml")
    assert not YOUNGER & set(card.model_dump(mode="json"))
    assert parse_teacher({**SCORER, "calibrate": "percentile"}, "x").model_dump()["calibrate"] == "percentile"
    assert "name" not in card.model_dump(exclude={"name"})
    ensemble = load_teacher("bm25+minilm")
    assert set(ensemble.model_dump(include={"combine", "weights"})) == {"combine", "weights"}
    assert not YOUNGER & set(ensemble.model_dump())


def test_a_card_knows_the_folder_that_its_paths_start_in(tmp_path):
    name = write(tmp_path / "mine.toml", name="mine", kind="recorded", scale="logit")
    assert [(placed.card.name, placed.base) for placed in load_placed(name)] == [("mine", tmp_path)]
