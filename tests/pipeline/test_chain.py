"""A student that is taught by the wrong student, or by yesterday's, learns something that nobody can find again."""

from __future__ import annotations

import json
from copy import deepcopy

import numpy as np
import pytest
from helpers_pipeline import card_of, evaluate, planned, train
from mini_pipeline import write_card

from rerankdistill.errors import CardError
from rerankdistill.kinds import open_kind
from rerankdistill.pipeline import verbs
from rerankdistill.pipeline.chain import ITSELF, cast, stem
from rerankdistill.pipeline.learning import student_options
from rerankdistill.pipeline.mining import read_candidates
from rerankdistill.pipeline.soundness import check_card
from rerankdistill.pipeline.workspace import Workspace
from rerankdistill.scores.card import Context, ScorerCard


@pytest.fixture
def chain(mini, models):
    """teacher (BM25 and a bi-encoder) -> cross-encoder "assistant" -> bi-encoder "small"."""
    small = mini["students"].pop("small")
    small["stages"][0] |= {"train": {"steps": 2, "batch": 4}}
    small |= {"control": "none", "measure_before": False}
    assistant = deepcopy(small)
    assistant |= {"kind": "cross_encoder", "options": {"init": str(models / "cross"), "max_tokens": 96}}
    assistant["stages"][0]["options"] = {}
    mini["students"] = {"small": small | {"teacher": "student:assistant"}, "assistant": assistant}
    return mini | {"check": False}


def names(steps, *parts):
    return {name for name in steps if all(part in name for part in parts)}


def test_a_chain_is_trained_in_its_order_and_only_what_hangs_on_a_change_again(chain, tmp_path):
    out = tmp_path / "work"
    wanted = planned(chain, out, proof=False)
    heard = train(chain, out)
    assert set(heard.ran) == wanted
    order = list(heard.ran)
    assert order.index("student assistant (seed 1)") < order.index("scores assistant-seed1 · train")
    assert order.index("scores assistant-seed1 · train") < order.index("student small (seed 1)")
    the_assistants_scores_are_those_that_it_re_ranks_with(chain, out)

    chain["students"]["small"]["stages"][0]["train"]["steps"] = 3
    assert planned(chain, out, proof=False) == {"student small (seed 1)"}, "its student is nothing to the assistant"
    chain["students"]["assistant"]["stages"][0]["train"]["steps"] = 1
    wanted = planned(chain, out, proof=False)
    assert set(train(chain, out).ran) == wanted
    assert wanted == {
        "student assistant (seed 1)",
        "scores assistant-seed1 · train",
        "examples train · student-assistant-seed1",
        "student small (seed 1)",
    }
    assert not planned(chain, out, proof=False)


def the_assistants_scores_are_those_that_it_re_ranks_with(table, out):
    """A cross-encoder is opened by the teachers' own kind, which cuts texts by the card alone; others as themselves."""
    ws = Workspace(card_of(table), out)
    lessons, card = verbs.all_lessons(ws)["small"], ws.card.students["assistant"]
    raw = lessons.faculty.raw(lessons.asked, lessons.candidates, lessons.scored)[0]
    folder, options = out / "students/assistant-seed1", student_options("assistant", card)
    student = open_kind("students", card.kind).open(folder, options, "cpu")
    about = {"kind": ITSELF, "options": {"kind": card.kind, "options": card.options}}
    itself = ScorerCard.model_validate({"name": "itself", "model": str(folder), "scale": "logit", **about})
    teacher = open_kind("scores", ITSELF).open(itself, Context("cpu"))
    lists = read_candidates(lessons.candidates)
    for group in list(lessons.faculty.groups(lessons.asked.read(), lists, texts=True))[:3]:
        own = student.score([(group.query.text, text) for text in group.texts])
        np.testing.assert_allclose(raw[group.query.query_id], own, atol=0.03)  # its head may be in bfloat16
        np.testing.assert_allclose(teacher.judge([group, group])[1], own, rtol=1e-5)


def test_each_seed_is_taught_by_its_own_assistant_and_the_report_tells_how_well(chain, tmp_path):
    out = tmp_path / "work"
    heard, (report,) = evaluate(chain | {"seeds": [1, 2], "check": {"force": True}}, out)
    assert {"student assistant (seed 1)", "student assistant (seed 2)"} <= set(heard.ran)
    checks = {f"teacher check small{label} · student-assistant-seed{n}" for n, label in ((1, ""), (2, "-seed2"))}
    assert checks <= set(heard.ran)
    inputs = [json.loads((out / f"students/small-seed{seed}/manifest.json").read_text())["inputs"] for seed in (1, 2)]
    assert inputs[0]["material"] != inputs[1]["material"]
    rows = {row["name"]: row for row in report["rows"]}
    assert rows["small"]["teacher"] == "teacher student-assistant"
    assert set(rows["small"]["fidelity"]) == {"tau", "top1", "overlap@10"}
    assert rows["teacher student-assistant"]["kind"] == "teacher"
    assert not planned(chain | {"seeds": [1, 2], "check": {"force": True}}, out)


def test_a_bi_encoder_teaches_whole_batches_and_its_vectors_are_made_once(chain, teachers, tmp_path):
    chain["students"]["assistant"] = deepcopy(chain["students"]["small"]) | {"teacher": str(teachers / "fused.toml")}
    both = {"name": "both", "kind": "ensemble", "members": ["lexical.toml", "student:assistant"], "combine": "zscore"}
    chain["students"]["small"]["teacher"] = str(write_card(teachers / "both.toml", both))
    heard, _ = evaluate(chain, tmp_path / "work")
    assert len(names(heard.ran, "vectors assistant-seed1")) == 1
    assert names(heard.ran, "scores assistant-seed1 · train")
    assert names(heard.ran, "examples train · both-seed1")
    ws = Workspace(card_of(chain), tmp_path / "work")
    lessons = verbs.all_lessons(ws)["small"]
    assert lessons.faculty.live
    queries = list(lessons.asked.read())[:2]
    assert lessons.faculty.matrix(queries, ["d0", "d1"], [(0, 0)] * 2, [(1, 1)] * 2).shape == (2, 2)


def test_all_at_once_puts_no_two_products_into_one_folder(chain, tmp_path):
    """Seeds, rounds, a tuning, relabelled positives and arms that are taught nonsense: each has its own examples."""
    small = chain["students"]["small"]
    second = deepcopy(small["stages"][0]) | {"remine": True, "tune": {"learning_rate": [1e-3, 1e-4]}}
    small["stages"] = [*small["stages"], second, deepcopy(second)]
    small |= {"control": "auto", "relabel": "teacher", "queries": ["train", "titles"], "shuffled": ["teacher"]}
    small["extra_controls"] = {"relabelled": [{"loss": "infonce", "train": {"steps": 2}}]}
    small["refine"] = {"teacher": "student:assistant", "depth": 5}
    wanted = planned(chain | {"seeds": [1, 2], "check": True}, tmp_path / "work")
    rounds = {f"{arm}-round{n}-seed{s}" for arm in ("small", "small.control") for n in (2, 3) for s in (1, 2)}
    assert {f"candidates train+titles-{each}" for each in rounds} <= wanted
    plain, chosen = (f"examples train+titles · student-assistant-seed2{each}" for each in ("", "-relabelled"))
    assert {plain, chosen, f"{chosen}-small-round3-seed2", f"{plain}-small.control-round3-seed2"} <= wanted
    assert "run small-seed2+refined · test" in wanted


def test_another_folder_makes_no_other_teacher(chain, tmp_path):
    marks = set()
    for name in ("here", "there"):
        ws = Workspace(card_of(chain), tmp_path / name)
        marks.add(verbs.all_lessons(ws)["small"].faculty.members[0].mark)
    assert len(marks) == 1


@pytest.mark.parametrize("links", [("small",), ("assistant", "small"), ("assistant", "third", "small")])
def test_a_circle_is_told_with_its_students_before_anything_is_read(chain, tmp_path, links):
    chain["students"]["third"] = deepcopy(chain["students"]["assistant"])
    for name, teacher in zip(("small", *links), links, strict=False):
        chain["students"][name]["teacher"] = f"student:{teacher}"
    with pytest.raises(CardError, match="circle: " + " → ".join(("small", *links))):
        train(chain, tmp_path / "work")
    with pytest.raises(CardError, match="circle"):
        check_card(card_of(chain))
    assert not (tmp_path / "work").exists()


def test_a_student_that_is_not_there_is_told_with_the_nearest_name(chain, tmp_path):
    chain["students"]["small"]["teacher"] = "student:asistant"
    with pytest.raises(CardError, match="did you mean 'assistant'"):
        train(chain, tmp_path / "work")


def test_a_student_of_pairs_without_a_kind_of_teacher_is_opened_as_itself(chain):
    """Its question and its words are its own: no other kind would ask in the same way."""
    chain["students"]["assistant"] |= {"kind": "seq2seq", "options": {"init": "somewhere", "output": "logprob"}}
    card = cast(card_of(chain), "student:assistant").card
    assert (card.kind, card.scale.value) == ("rerankdistill.pipeline.chain:Trained", "logprob")
    assert card.options == {"kind": "seq2seq", "options": {"init": "somewhere", "output": "logprob"}}
    assert stem("student:assistant") == "student-assistant"
