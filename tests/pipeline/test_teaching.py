"""A teacher over a collection: what stands before another one, and what is made of the scores."""

from __future__ import annotations

import numpy as np
import pytest
from helpers_pipeline import card_of
from mini_pipeline import TOPICS, write_card

from rerankdistill import artifacts
from rerankdistill.errors import DataError, ScaleError
from rerankdistill.pipeline.mining import Shelf
from rerankdistill.pipeline.step import Quiet, Step, walk
from rerankdistill.pipeline.teaching import Faculty, fused_as
from rerankdistill.pipeline.workspace import Workspace
from rerankdistill.scores.card import load_teacher
from rerankdistill.types import Group, Query, Scale, View

QUERIES = [Query("q0", TOPICS[0][2]), Query("q1", TOPICS[1][2])]


@pytest.fixture
def faculty(mini, tmp_path):
    ws = Workspace(card_of(mini), tmp_path / "work")
    return lambda name, whole=True: Faculty(ws, Shelf(ws.source(), View.TITLE_TEXT), str(name), whole)


def rewritten(teachers, behind, text=TOPICS[5][2], scale="lexical"):
    (teachers / "rewritten.tsv").write_text(f"q0\t{text}\nq1\t{TOPICS[1][2]}\n", "utf-8")
    options = {"teacher": behind, "queries": "rewritten.tsv"}
    return write_card(
        teachers / "disco.toml", {"name": "disco", "kind": "rewritten_query", "scale": scale, "options": options}
    )


def judge(faculty, queries=QUERIES):
    member = faculty.members[0]
    walk(list(member.needs), Quiet())
    docs = [f"d{n}" for n in range(8)]
    texts = faculty.shelf.source.texts(docs, View.TITLE_TEXT)
    return faculty.open(member).judge([Group(query, tuple(docs), tuple(texts)) for query in queries])


@pytest.mark.parametrize(("behind", "scale"), [("lexical", "lexical"), ("bi", "similarity")])
def test_the_teacher_behind_gets_all_it_needs_and_the_other_query(faculty, teachers, behind, scale):
    found = judge(faculty(rewritten(teachers, f"{behind}.toml", scale=scale)))
    plain = judge(faculty(teachers / f"{behind}.toml"), [Query("q0", TOPICS[5][2]), QUERIES[1]])
    np.testing.assert_allclose(np.stack(found), np.stack(plain), atol=1e-6)
    if behind == "lexical":
        assert found[0].argmax() == 5, "it was shown the student's own query"


def test_other_rewritten_texts_are_another_teacher(faculty, teachers):
    marks = {faculty(rewritten(teachers, "bi.toml", text, "similarity")).members[0].mark for text in ("one", "two")}
    assert len(marks) == 2
    assert not faculty(teachers / "disco.toml").live, "its scores of a batch would be of the wrong queries"


def test_what_only_decides_the_examples_leaves_the_scores_fresh(faculty, teachers):
    before = faculty(teachers / "bi.toml").members[0].mark
    text = (teachers / "bi.toml").read_text()
    (teachers / "calibrated.toml").write_text(text + 'calibrate = "temperature"\n')
    calibrated = faculty(teachers / "calibrated.toml")
    assert calibrated.members[0].mark == before
    assert fused_as(calibrated.card).calibrate == "temperature"


def test_what_looks_at_a_querys_own_list_is_not_asked_about_whole_batches(faculty, teachers):
    members = ["lexical.toml", "bi.toml"]
    assert faculty(teachers / "fused.toml").live
    for more in ({"combine": "rrf"}, {"weights_by": "agreement"}, {"calibrate": "percentile"}):
        card = {"name": "e", "kind": "ensemble", "members": members, **more}
        assert not faculty(write_card(teachers / "e.toml", card)).live, more


def test_the_scale_is_that_of_the_examples_and_nonsense_is_refused(faculty, teachers):
    assert faculty(teachers / "fused.toml").scale is Scale.ZSCORE
    card = {"name": "e", "kind": "ensemble", "members": ["lexical.toml", "bi.toml"], "combine": "rrf"}
    assert faculty(write_card(teachers / "e.toml", card)).scale is Scale.RANK
    card = {**card, "calibrate": "percentile"}
    with pytest.raises(ScaleError, match="only gives an order"):
        faculty(write_card(teachers / "e.toml", card)).scale  # noqa: B018


def test_the_fusion_of_every_candidate_is_by_reciprocal_rank(faculty, teachers):
    card = {"name": "e", "kind": "ensemble", "members": ["lexical.toml", "bi.toml"], "combine": "rrf"}
    made = faculty(write_card(teachers / "e.toml", card))
    fused = made.fused([{"q": np.array([3.0, 2.0])}, {"q": np.array([0.1, 0.2])}])
    np.testing.assert_allclose(fused["q"], [(1 / 61 + 1 / 62) / 2] * 2)
    assert load_teacher(str(teachers / "e.toml")).combine == "rrf"


def test_queries_that_nobody_rewrote_stop_the_step_before_it_scores(faculty, teachers, tmp_path):
    made = faculty(rewritten(teachers, "bi.toml", scale="similarity"), whole=False)
    step = Step("scores", tmp_path / "step", artifacts.plan("scored", 1, {}, {}))

    class Given:
        @staticmethod
        def read():
            return [*QUERIES, Query("q7", "nobody rewrote this")]

    with pytest.raises(DataError, match="q7"):
        made._score(made.members[0], Given, step, tmp_path, step)
    assert not list((tmp_path / "work").glob("scores/*"))
