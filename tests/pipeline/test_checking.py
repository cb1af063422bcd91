"""Nobody trains for a night on a teacher that teaches nothing, and nobody is kept from it who insists."""

from __future__ import annotations

import json

import pytest
from helpers_pipeline import Heard, card_of, planned, train
from mini_pipeline import TRAIN, write_card

from rerankdistill.errors import CardError, ExpectationNotMet

CHECK = "teacher check small · given"


@pytest.fixture
def lean(mini):
    mini["students"]["small"]["control"] = "none"
    mini["mine"] = {"depth": 6, "indexes": ["bm25"]}
    return mini


def given(folder, score):
    """A card of recorded scores for every training query and document."""
    lines = "".join(f"q{q}\td{d}\t{score(q, d)}\n" for q in TRAIN for d in range(80))
    (folder / "scores.tsv").write_text(lines)
    card = {"name": "given", "kind": "recorded", "scale": "logit", "options": {"path": str(folder / "scores.tsv")}}
    return str(write_card(folder / "given.toml", card))


@pytest.mark.filterwarnings("ignore::rerankdistill.errors.RerankDistillWarning")
def test_a_reversed_teacher_is_refused_until_somebody_insists(lean, teachers, tmp_path):
    out = tmp_path / "work"
    lean["teacher"] = given(teachers, lambda q, d: abs(q - d) / 40)
    with pytest.raises(ExpectationNotMet, match="do not distil: it is reversed") as error:
        train(lean, out)
    assert (error.value.exit_code, "--force" in error.value.fix) == (6, True)
    found = json.loads((out / "checks/small/check.json").read_text())
    assert (found["refused"], found["faults"][0]) == (True, "reversed")
    assert found["findings"]["judged"] == len(TRAIN)
    assert found["findings"]["ndcg_student"] is not None
    assert not (out / "students").exists() or not list((out / "students").iterdir())

    with pytest.raises(ExpectationNotMet, match="reversed"):  # from the findings that are there
        train(lean, out)
    assert CHECK not in planned(lean, out, proof=False)

    lean["check"] = {"force": True}
    assert CHECK in train(lean, out).fresh
    assert (out / "students/small-seed1/modules.json").exists()
    assert not planned({**lean, "check": {}}, out, proof=False), "how it was allowed decides nothing about the student"


@pytest.mark.filterwarnings("ignore::rerankdistill.errors.RerankDistillWarning")
def test_a_good_teacher_passes_and_a_check_that_is_off_costs_nothing(lean, teachers, tmp_path):
    lean["teacher"] = given(teachers, lambda q, d: -abs(q - d) / 40)
    lean["students"]["small"]["shuffled"] = ["scores"]  # taught nonsense on purpose, which is not the teacher's fault
    heard = train(lean, tmp_path / "work")
    assert CHECK in heard.ran
    assert list(heard.ran).index(CHECK) < list(heard.ran).index("student small (seed 1)")
    found = json.loads((tmp_path / "work/checks/small/check.json").read_text())
    assert not found["refused"]
    assert found["findings"]["ndcg"] == 1.0
    assert found["findings"]["ndcg_chance"] < 0.7
    assert CHECK not in planned({**lean, "check": False}, tmp_path / "other", proof=False)


def test_a_student_that_hears_no_teacher_has_none_to_check(lean, tmp_path):
    lean["students"]["small"]["stages"][0].update(loss="infonce", options={})
    assert not {name for name in planned(lean, tmp_path / "work") if "check" in name}


@pytest.mark.filterwarnings("ignore::rerankdistill.errors.RerankDistillWarning")
def test_made_up_queries_judge_nobody(lean, teachers, tmp_path):
    lean["teacher"] = str(teachers / "bi.toml")
    lean["students"]["small"].update(queries=["sentences"], max_queries=20)
    heard = Heard()
    from rerankdistill.pipeline import verbs

    verbs.train(card_of(lean), tmp_path / "work", heard)
    found = json.loads((tmp_path / "work/checks/small/check.json").read_text())
    assert found["findings"]["judged"] == 0
    assert "unjudged" in found["faults"]


def test_the_checks_table_is_read_strictly(mini):
    for value in ({"forse": True}, {"queries": 0}, "off"):
        with pytest.raises(CardError, match="check"):
            card_of({**mini, "check": value})
    assert card_of({**mini, "check": False}).check.run is False
    assert card_of(mini).check.force is False


@pytest.mark.filterwarnings("ignore::rerankdistill.errors.RerankDistillWarning")
def test_a_constant_teacher_is_refused_by_its_name(lean, teachers, tmp_path):
    lean["teacher"] = given(teachers, lambda *_: 2.0)
    with pytest.raises(ExpectationNotMet, match="it is constant"):
        train(lean, tmp_path / "work")
