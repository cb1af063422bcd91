"""Cards and kinds from the command line: list, show, copy, check."""

from __future__ import annotations

import tomllib

import pytest

from rerankdistill import cards, kinds

SHELVES = ["teachers", "indexes", "pipelines", "sweeps", "styles"]


@pytest.mark.parametrize("shelf", SHELVES)
def test_list_names_every_card_with_what_it_is(call, shelf):
    done = call(shelf, "list")
    assert done.code == 0
    assert [line.split()[0] for line in done.out.splitlines()] == list(cards.list_cards(shelf))


@pytest.mark.parametrize("shelf", SHELVES)
def test_show_prints_the_card_byte_for_byte(call, shelf):
    name, path = next(iter(cards.list_cards(shelf).items()))
    assert call(shelf, "show", name).out == path.read_text("utf-8")
    done = call(shelf, "show", name + "x")
    assert done.code == 5
    assert f"did you mean {name!r}?" in done.err


def test_a_copied_card_is_the_users_and_is_never_overwritten(call, tmp_path):
    done = call("teachers", "copy", "minilm", tmp_path)
    copy = tmp_path / "minilm.toml"
    assert (done.code, done.out.strip()) == (0, str(copy))
    assert tomllib.loads(copy.read_text())["name"] == "minilm"
    copy.write_text(copy.read_text().replace("query = 64", "query = 32"))
    done = call("teachers", "copy", "minilm", tmp_path)
    assert (done.code, "already" in done.err) == (2, True)
    assert "query = 32" in copy.read_text()
    assert call("teachers", "check", copy).code == 0


def test_a_copy_into_a_folder_that_is_not_there_says_so(call, tmp_path):
    done = call("teachers", "copy", "minilm", tmp_path / "none" / "mine.toml")
    assert done.code in (2, 4)
    assert str(tmp_path / "none") in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize("name", cards.list_cards("teachers"))
def test_every_shipped_teacher_passes_its_own_check(call, name):
    done = call("teachers", "check", name)
    assert done.code == 0, done.err
    assert "good" in done.out


@pytest.mark.parametrize("name", ["bm25", "flat", "hnsw"])
def test_the_indexes_pass_their_own_check(call, name):
    assert call("indexes", "check", name).code == 0


def test_every_mistake_of_a_card_is_said_at_once(call, tmp_path):
    card = tmp_path / "mine.toml"
    card.write_text('kind = "flat"\nviev = "text"\n[options]\nmetrik = "dot"\n')
    done = call("indexes", "check", card)
    assert done.code == 5
    assert "did you mean 'view'?" in done.err
    assert "Traceback" not in done.err
    card.write_text('name = "x"\nmodel = "m"\nlicense = "MIT"\n')
    done = call("teachers", "check", card)
    assert (done.code, "mistakes" in done.err) == (5, True)


def test_a_pipelines_check_says_what_it_is_about(call, pipeline, collection):
    done = call("pipelines", "check", pipeline)
    assert done.code == 0, done.err
    assert str(collection) in done.out


def test_losses_are_listed_and_explained(call):
    done = call("losses", "list")
    assert [line.split()[0] for line in done.out.splitlines()] == kinds.names("losses")
    assert all(len(line.split()) > 2 for line in done.out.splitlines())


@pytest.mark.parametrize("name", kinds.names("losses"))
def test_every_loss_can_be_shown(call, name):
    done = call("losses", "show", name)
    assert done.code == 0, done.err
    assert "eats:" in done.out


def test_the_scales_a_loss_eats_are_told(call):
    assert "logit" in call("losses", "show", "kl_div").out
    assert "labels only" in call("losses", "show", "infonce").out
    told = call("losses", "show", "pairwise_preference").out
    assert "learns from: preferences" in told
    assert "labels only" not in told
    done = call("losses", "show", "kl_dvi")
    assert (done.code, "did you mean 'kl_div'?" in done.err) == (2, True)


def test_a_collection_is_counted(call, collection):
    done = call("collections", "check", collection)
    assert done.code == 0, done.err
    assert "documents 60" in done.out
    assert "train: 20 queries, 20 judgements" in done.out
    assert "test: 10 queries" in done.out
    assert "pydocs" in call("collections", "list").out


@pytest.mark.parametrize("name", ["./not-there", "no-such/dataset"])
def test_a_collection_that_is_not_there_is_one_sentence(call, name):
    done = call("collections", "check", name)
    assert done.code == 5
    assert done.err.startswith("error: ")
    assert "Traceback" not in done.err
