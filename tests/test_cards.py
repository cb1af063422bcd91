"""A card is read strictly: every mistake at once, each with what was meant."""

from __future__ import annotations

import tomllib

import pytest
from pydantic import Field, ValidationError

from rerankdistill import cards
from rerankdistill.cards import Card, find_card, parse, parse_forms, read_toml
from rerankdistill.errors import CardError, UsageError


class Train(Card):
    learning_rate: float = Field(default=1e-4, gt=0)
    steps: int = 100


class Stage(Card):
    loss: str
    train: Train = Train()


class Recipe(Card):
    name: str
    depth: int = 10
    stages: tuple[Stage, ...] = ()
    students: dict[str, Stage] = Field(default_factory=dict)


def mistakes(data) -> list[str]:
    with pytest.raises(CardError) as caught:
        parse(Recipe, data, "my.toml")
    head, *lines = str(caught.value).splitlines()
    assert head == f"my.toml: {len(lines)} mistake{'s' if len(lines) > 1 else ''}"
    return [line.removeprefix("  - ") for line in lines]


def test_three_mistakes_take_one_edit_not_three():
    found = mistakes({"depht": 5, "depth": "many", "stages": []})
    assert len(found) == 3
    assert "name: missing" in found
    assert "depht: unknown field; did you mean 'depth'?" in found
    assert any(line.startswith("depth: ") and "'many'" in line for line in found)


def test_a_slip_deep_inside_says_its_place_and_what_was_meant():
    found = mistakes({"name": "x", "stages": [{"loss": "kl_div", "train": {"learning_rat": 1}}]})
    assert found == ["stages.0.train.learning_rat: unknown field; did you mean 'learning_rate'?"]
    found = mistakes({"name": "x", "students": {"small": {"loss": "kl_div", "train": {"stpes": 1}}}})
    assert found == ["students.small.train.stpes: unknown field; did you mean 'steps'?"]


def test_a_value_out_of_range_is_shown_with_what_was_given():
    (found,) = mistakes({"name": "x", "stages": [{"loss": "a", "train": {"learning_rate": -1}}]})
    assert found.startswith("stages.0.train.learning_rate: ")
    assert found.endswith("(got -1)")


def test_a_card_cannot_be_changed_after_it_was_checked():
    card = parse(Recipe, {"name": "x"}, "my.toml")
    with pytest.raises(ValidationError):
        card.depth = 5


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"name = 'a'\ndepth = = 3\n", "line 2"),
        (b"name = 'a'\nname = 'b'\n", "line 2"),
        (b"name = 'caf\xe9'\n", "not UTF-8 (byte 11)"),
    ],
    ids=["broken line", "twice", "latin-1"],
)
def test_a_file_that_is_no_toml_says_where(tmp_path, content, says):
    path = tmp_path / "card.toml"
    path.write_bytes(content)
    with pytest.raises(CardError) as caught:
        read_toml(path)
    assert says in str(caught.value)
    assert caught.value.where == str(path)


def test_a_missing_file_is_a_card_error_not_a_traceback(tmp_path):
    with pytest.raises(CardError, match="no such file"):
        read_toml(tmp_path / "none.toml")


def test_a_folder_named_like_a_card_is_not_read_as_one(tmp_path):
    (tmp_path / "odd.toml").mkdir()
    with pytest.raises(CardError):
        find_card("teachers", str(tmp_path / "odd.toml"))
    with pytest.raises(CardError):
        read_toml(tmp_path / "odd.toml")


def test_a_name_that_is_nearly_right_is_completed():
    with pytest.raises(CardError) as caught:
        find_card("indexes", "bm26")
    assert caught.value.fix.startswith("did you mean 'bm25'?")


@pytest.mark.parametrize("room", cards.SHELVES)
def test_every_shelf_is_found_in_a_checkout(room):
    assert cards.list_cards(room)
    name, path = next(iter(cards.list_cards(room).items()))
    assert find_card(room, name) == find_card(room, str(path)) == path


FORMS = """
name = "x"
depth = 10
stages = [{ loss = "a", train = { steps = 500, learning_rate = 0.1 } }, { loss = "b" }]
[students.one]
loss = "kl"
train = { steps = 900 }
"""


def forms(folder, small, full=FORMS, **more):
    path = folder / "forms.toml"
    path.write_text(full + small, "utf-8")
    return [parse_forms(Recipe, path, small, **more) for small in (False, True)]


def test_a_small_form_keeps_whatever_it_does_not_name(tmp_path):
    small = '[small]\nstages = [{ train = { steps = 5 } }, { loss = "c" }]\n[small.students.one.train]\nsteps = 9\n'
    full, short = forms(tmp_path, small)
    assert full == parse(Recipe, tomllib.loads(FORMS), "as it is")
    assert (short.name, short.depth) == ("x", 10)
    assert short.stages[0] == Stage(loss="a", train=Train(steps=5, learning_rate=0.1))
    assert short.stages[1] == Stage(loss="c")
    assert short.students["one"] == Stage(loss="kl", train=Train(steps=9))


def test_an_empty_table_empties_and_a_shorter_array_drops_what_a_merge_alone_could_never_take_away():
    table = {"splits": {"train": "big/train"}, "stages": [{"loss": "a"}, {"loss": "b"}], "names": ["p", "q"]}
    changes = {"splits": {}, "stages": [{"steps": 1}], "names": ["r"]}
    assert cards.merged(table, changes) == {"splits": {}, "stages": [{"loss": "a", "steps": 1}], "names": ["r"]}
    assert table["stages"] == [{"loss": "a"}, {"loss": "b"}], "the file's own form is left alone"
    assert cards.merged({}, changes)["stages"] == [{"steps": 1}]


def test_a_slip_in_the_small_form_is_found_while_the_full_one_runs(tmp_path):
    with pytest.raises(CardError) as caught:
        forms(tmp_path, "[small]\ndepht = 5\n[small.students.one.train]\nsteps = 'few'\n", FORMS + "wrong = 1\n")
    lines = str(caught.value).splitlines()
    assert "3 mistakes" in lines[0]
    assert sum("[small] " in line for line in lines) == 2, "what is wrong with both is said once"
    assert any("[small] depht: unknown field; did you mean 'depth'?" in line for line in lines)


def test_a_file_without_a_small_form_does_not_run_in_full_instead(tmp_path):
    with pytest.raises(UsageError, match=r"no table \[small\]"):
        forms(tmp_path, "")
    with pytest.raises(CardError, match="must be a table"):
        forms(tmp_path, "", "small = 3\n" + FORMS)


def test_an_override_reaches_the_form_that_runs_and_no_other(tmp_path):
    full, short = forms(tmp_path, "[small]\ndepth = 3\n", edit=lambda table: table.update(depth=table["depth"] + 1))
    assert (full.depth, short.depth) == (11, 4)


def test_a_card_beside_the_file_is_found_from_another_folder(tmp_path):
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "mine.toml").write_text("")
    table = {"teacher": "own/mine.toml", "stages": [{"match": "minilm", "card": ["own/mine.toml", "not/there.toml"]}]}
    found = cards.beside(table, tmp_path)
    mine = str(tmp_path / "own" / "mine.toml")
    assert found == {"teacher": mine, "stages": [{"match": "minilm", "card": [mine, "not/there.toml"]}]}
