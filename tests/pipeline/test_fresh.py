"""A step that is skipped by accident is a wrong number; one that runs by accident is a lost night."""

from __future__ import annotations

import json
import shutil

from helpers_pipeline import evaluate, figures, planned, train

from rerankdistill.pipeline import verbs

TRAINING = {
    "queries train",
    "index bm25",
    "vectors tiny-bi · docs",
    "index flat-tiny-bi",
    "run bm25 · train",
    "run flat · train",
    "candidates train",
    "scores tiny-lexical · train",
    "scores tiny-bi · train",
    "examples train · fused",
    "teacher check small · fused",
    "student small (seed 1)",
    "student small.control (seed 1)",
}


def test_the_whole_way_runs_once_and_then_exactly_what_a_change_touches(mini, collection, teachers, tmp_path):
    out = tmp_path / "work"
    wanted = planned(mini, out, proof=False)
    assert set(train(mini, out).ran) == wanted == TRAINING

    wanted = planned(mini, out)
    heard, (report,) = evaluate(mini, out)
    assert set(heard.ran) == wanted, "a dry run said something else"
    assert not TRAINING & set(heard.ran)
    names = {"bm25", "small before", "small", "small control", "bm25 + small", "teacher fused", "member tiny-bi"}
    assert names <= set(figures(report))
    assert report["queries"] == 30
    everything = TRAINING | set(heard.ran)

    again, (same,) = evaluate(mini, out)
    assert not again.ran
    assert set(again.fresh) == everything
    assert same == report

    _one_seed(mini, out, everything)
    _one_field_of_a_teacher(mini, out, teachers)
    _one_option_of_a_loss(mini, out)
    _one_document(mini, out, collection, everything)
    assert figures(evaluate(mini, out)[1][0]).keys() == figures(report).keys()


def changed(table, out):
    """The steps that run after a change, which must be what a dry run says."""
    wanted = planned(table, out)
    heard, _ = evaluate(table, out)
    assert set(heard.ran) == wanted
    return set(heard.ran)


def of_students(names):
    """The steps that a trained student's weights decide."""
    others = ("before", "teacher check")
    return {name for name in names if "small" in name and not any(each in name for each in others)} | {"report test"}


def _one_seed(mini, out, everything):
    ran = changed({**mini, "seeds": [2]}, out)
    assert {name.replace("(seed 2)", "(seed 1)").replace("seed2", "seed1") for name in ran} == of_students(everything)
    assert not changed(mini, out) - {"report test"}, "the first seed's students are still there"


def _one_option_of_a_loss(mini, out):
    stage = mini["students"]["small"]["stages"][0]
    stage["options"]["kl_div"]["tau_student"] = 0.2
    ran = changed(mini, out)
    assert "student small (seed 1)" in ran
    assert not {name for name in ran if "control" in name}, "the control has no kl_div"
    assert not ran & (TRAINING - {"student small (seed 1)"})


def _one_field_of_a_teacher(mini, out, teachers):
    card = teachers / "fused.toml"
    card.write_text(card.read_text() + "weights = [1.0, 2.0]\n")
    ran = changed(mini, out)
    assert not {
        name for name in ran if name.startswith(("scores", "index flat-tiny", "vectors tiny", "candidates", "queries"))
    }
    assert {"examples train · fused", "student small (seed 1)", "run teacher-fused · test", "report test"} <= ran
    described = card.read_text() + 'description = "words decide nothing"\n'
    card.write_text(described)
    assert not changed(mini, out)


def _one_document(mini, out, collection, everything):
    path = collection / "corpus.jsonl"
    rows = path.read_text().splitlines()
    first = json.loads(rows[0])
    path.write_text("\n".join([json.dumps({**first, "text": first["text"] + " It leaks."}), *rows[1:]]) + "\n")
    ran = changed(mini, out)
    assert everything - ran == {"queries train", "student small before"}


def test_a_changed_test_judgement_makes_the_report_again_and_nothing_else(mini, collection, tmp_path):
    mini["students"]["small"]["control"] = "none"
    evaluate(mini, tmp_path / "work")
    path = collection / "qrels/test.tsv"
    path.write_text(path.read_text() + "q40\td41\t1\n")
    assert changed(mini, tmp_path / "work") == {"report test"}


def test_what_was_deleted_is_made_again_and_a_dry_run_says_so(mini, tmp_path):
    out = tmp_path / "work"
    train(mini, out)
    shutil.rmtree(out / "runs/train/bm25")
    wanted = planned(mini, out, proof=False)
    assert set(train(mini, out).ran) == wanted == {"run bm25 · train"}


def test_a_plan_touches_nothing(mini, tmp_path):
    assert planned(mini, tmp_path / "work")
    assert not (tmp_path / "work").exists()


def test_a_single_steps_verb_goes_as_far_as_its_product(mini, tmp_path):
    from helpers_pipeline import card_of

    (folder,) = verbs.part_way(card_of(mini), tmp_path / "work", "candidates")
    assert json.loads((folder / "manifest.json").read_text())["kind"] == "candidates"
    assert not (tmp_path / "work/students").exists()
