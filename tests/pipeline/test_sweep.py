"""A sweep is a pipeline with many students; its table says what each objective is worth beside one baseline."""

from __future__ import annotations

import json

import pytest
import tomlkit
from helpers_pipeline import Heard

from rerankdistill.errors import CardError
from rerankdistill.pipeline import verbs
from rerankdistill.pipeline.sweep import expand, load_sweep, rows, texts, to_json, to_markdown

OBJECTIVES = {
    "labels": {"loss": "infonce", "options": {"infonce": {"tau": 0.1}}},
    "kl": {"loss": "kl_div", "options": {"kl_div": {"tau_student": 0.1}}, "train": {"learning_rate": 5e-4}},
    "order": {"loss": "ranknet"},
}


@pytest.fixture
def made(mini, tmp_path):
    """``made(changes)``: a sweep's file over the miniature pipeline."""

    def making(**changes):
        pipeline = tmp_path / "mini.toml"
        pipeline.write_text(tomlkit.dumps(mini), "utf-8")
        table = {"name": "tried", "pipeline": str(pipeline), "seeds": 2, "objectives": OBJECTIVES, **changes}
        path = tmp_path / "tried.toml"
        path.write_text(tomlkit.dumps(table), "utf-8")
        return str(path)

    return making


def test_every_objective_variation_and_teacher_is_a_student_with_the_same_steps(made, teachers):
    both = [str(teachers / "fused.toml"), str(teachers / "bi.toml")]
    whole = expand(load_sweep(made(students={"one": {"layers": 1}, "two": {"layers": 2}}, teachers=both)))
    assert len(whole.students) == 3 * 2 * 2
    assert "one-kl-fused" in whole.students
    assert {card.stages[-1].train.steps for card in whole.students.values()} == {6}
    assert whole.students["one-kl-fused"].stages[-1].train.learning_rate == 5e-4
    assert whole.students["one-labels-bi"].stages[-1].train.learning_rate == 1e-3, "the pipeline's own"
    assert whole.students["two-order-bi"].options["layers"] == 2
    assert whole.students["two-order-bi"].stages[-1].options == {}, "another objective's options would be refused"
    assert whole.seeds == (1, 2)
    pairs = whole.evaluate[0].compare
    assert ("two-order-bi", "two-labels-bi") in pairs
    assert len(pairs) == 8, "a baseline is not compared with itself, nor across variations"


def test_the_table_holds_means_spreads_and_tests_and_a_second_run_trains_nothing(made, tmp_path):
    sweep = load_sweep(made(random_teacher=True))
    whole = expand(sweep)
    (folder,) = verbs.evaluate(whole, tmp_path / "work")
    report = json.loads((folder / "report.json").read_text())
    found = rows(sweep, whole, report)
    assert [row.objective for row in found] == list(OBJECTIVES)
    labels, kl, order = found
    assert (labels.difference, labels.random_teacher) == (None, None)
    for row in (kl, order):
        assert row.difference == pytest.approx(row.mean - labels.mean, abs=1e-9)
        assert 0 <= row.p <= row.p_corrected <= 1
        assert row.seeds == 2
        assert row.random_teacher is not None
    means = next(row["seed_means"]["ndcg@10"] for row in report["rows"] if row["name"] == "kl-fused")
    assert kl.mean == pytest.approx(sum(means) / 2)
    assert kl.seed_std == pytest.approx(abs(means[0] - means[1]) / 2**0.5)
    text = to_markdown(sweep, report, found)
    assert text.count("\n| ") == 5
    assert "30 queries, 2 seeds" in text
    assert to_json(sweep, report, found)["rows"][1]["objective"] == "kl"
    heard = Heard()
    verbs.evaluate(whole, tmp_path / "work", heard)
    assert not heard.ran


def test_one_more_objective_trains_no_other_again(made, tmp_path):
    verbs.train(expand(load_sweep(made(seeds=1))), tmp_path / "work")
    heard = Heard()
    more = {**OBJECTIVES, "margins": {"loss": "margin_mse"}}
    verbs.train(expand(load_sweep(made(seeds=1, objectives=more))), tmp_path / "work", heard)
    trained = [name for name in heard.ran if name.startswith("student ")]
    assert trained == ["student margins-fused (seed 1)"]


def test_the_students_own_teacher_is_its_teacher_also_where_it_is_not_named(made, mini, teachers):
    mini["students"]["small"]["teacher"] = str(teachers / "bi.toml")
    assert set(expand(load_sweep(made())).students) == {"labels-bi", "kl-bi", "order-bi"}


def test_an_objective_that_names_no_loss_keeps_the_students(made):
    lists = {"short": {"list_size": 3}, "sharp": {"options": {"kl_div": {"tau_teacher": 0.5}}}}
    students = expand(load_sweep(made(objectives=lists))).students
    assert students["short-fused"].stages[-1].options == {"kl_div": {"tau_student": 0.1}}
    assert students["sharp-fused"].stages[-1].options == {"kl_div": {"tau_teacher": 0.5}}
    assert students["short-fused"].stages[-1].list_size == 3


def test_two_students_of_one_name_are_refused(made):
    table = {"students": {"a": {}, "a-b": {}}, "objectives": {"b-kl": {"loss": "kl_div"}, "kl": {"loss": "kl_div"}}}
    with pytest.raises(CardError, match="would be called 'a-b-kl-fused'"):
        expand(load_sweep(made(**table)))


def test_the_correction_is_over_the_sweeps_own_comparisons(made):
    sweep = load_sweep(made())
    named = [f"{name}-fused" for name in OBJECTIVES]
    report = {
        "rows": [{"name": name, "measures": {"ndcg@10": 0.5}} for name in named],
        "comparisons": [
            {"system": a, "baseline": b, "measure": "ndcg@10", "difference": 0.1, "p": 0.02, "p_corrected": 0.2}
            for a, b in [(named[1], named[0]), (named[2], named[0]), *((name, "bm25") for name in named)]
        ],
    }
    assert [row.p_corrected for row in rows(sweep, expand(sweep), report)] == [None, 0.04, 0.04]


def test_a_difference_that_could_be_luck_gets_no_mark():
    from rerankdistill.pipeline.sweep import SweepRow

    lines = texts(
        [
            SweepRow("a", "s", "t", 0.5, 3, 0.01),
            SweepRow("b", "s", "t", 0.6, 3, 0.01, 0.1, 0.001, 0.002),
            SweepRow("c", "s", "t", 0.4, 3, 0.01, -0.1, 0.0001, 0.0004, 0.1),
            SweepRow("d", "s", "t", 0.51, 3, 0.01, 0.01, 0.04, 0.08),
        ]
    )
    assert [line[5] for line in lines] == ["–", "+0.100†", "-0.100‡", "+0.010"]
    assert lines[2][-3:] == ("< 0.001", "< 0.001", "0.100")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"baseline": "labls"}, "no objective is called 'labls'"),
        ({"student": "smal"}, "no student 'smal'"),
        ({"objectives": {"kl": {"los": "kl_div"}}}, "did you mean 'loss'"),
        ({"objectives": {"k l": {"loss": "kl_div"}}}, "letters, digits"),
        ({"seed": 3}, "did you mean 'seeds'"),
    ],
)
def test_a_mistake_is_named(made, changes, told):
    with pytest.raises(CardError, match=told):
        expand(load_sweep(made(**changes)))


def test_a_pair_of_rows_that_is_not_there_cannot_be_compared(mini, tmp_path):
    from helpers_pipeline import evaluate

    mini["students"]["small"]["control"] = "none"
    mini["evaluate"] = [{"depth": 50, "compare": [["small", "smal"]]}]
    with pytest.raises(CardError, match="no row 'smal'"):
        evaluate(mini, tmp_path / "work")
