"""What a card says of a loss beyond its name: numbers that change, and queries that count by how hard they are."""

from __future__ import annotations

import json

import pytest
import tomlkit
from helpers_pipeline import card_of, planned, train

from rerankdistill.errors import CardError
from rerankdistill.pipeline.card import StageCard
from rerankdistill.pipeline.learning import apply_choice, build_loss, labels_only
from rerankdistill.pipeline.soundness import check_card

STAGE = """
loss = "taid + 0.1 infonce"
paced = { b = 2.0 }
[options]
taid = { share = { from = 0.2, to = 1.0, shape = "cosine" }, tau_student = 0.05 }
"""


def stage(text: str = STAGE) -> StageCard:
    return StageCard.model_validate(tomlkit.parse(text).unwrap())


def test_a_stages_ramps_and_pace_reach_its_loss():
    loss = build_loss(stage())
    assert "teacher" in loss.needs
    assert [loss.at(share).terms[0].loss.options.share for share in (0, 1)] == pytest.approx([0.2, 1.0])
    assert [(term.loss.pace.a, term.loss.pace.b) for term in loss.at(0.5).terms] == [(1, 2), (1, 2)]
    assert build_loss(stage('loss = "infonce"')).needs == {"student", "positive"}
    assert "teacher" in build_loss(stage('loss = "infonce"\npaced = {}')).needs


def test_the_control_of_labels_alone_hears_no_teacher_in_its_weights():
    assert build_loss(labels_only(stage())).needs == {"student", "positive"}


def test_a_stage_survives_the_way_through_json_and_a_choice_of_its_tuning():
    again = StageCard.model_validate(json.loads(json.dumps(stage().model_dump(mode="json"))))
    assert again == stage()
    chosen = apply_choice(stage(), {"taid.share": 0.5, "paced": {"a": 3.0}})
    assert build_loss(chosen).at(1).terms[0].loss.options.share == 0.5
    assert build_loss(chosen).terms[0].loss.pace.a == 3
    ramped = apply_choice(stage(), {"infonce.tau": {"from": 0.1, "to": 0.01}})
    assert build_loss(ramped).at(1).terms[1].loss.options.tau == pytest.approx(0.01)


def test_a_wrong_ramp_is_found_before_anything_runs_and_the_option_is_named(mini):
    mini["students"]["small"]["stages"][0]["options"] = {"kl_div": {"tau_student": {"from": 1.0, "to": 0.0}}}
    with pytest.raises(CardError, match="tau_student: where the ramp ends"):
        check_card(card_of(mini))


def test_a_ramped_and_paced_student_is_trained_and_is_trained_anew_when_its_ramp_changes(mini, tmp_path):
    small = mini["students"]["small"]
    small |= {"control": "none", "measure_before": False}
    ramp = {"from": 2.0, "to": 0.5}
    small["stages"][0] |= {"paced": {}, "options": {"kl_div": {"tau_student": 0.1, "tau_teacher": ramp}}}
    student = "student small (seed 1)"
    assert student in train(mini, tmp_path / "out").ran
    assert student in train(mini, tmp_path / "out").fresh
    ramp["to"] = 0.6
    assert student in planned(mini, tmp_path / "out", proof=False)
    ramp["to"] = 0.5
    del small["stages"][0]["paced"]
    assert student in planned(mini, tmp_path / "out", proof=False)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('loss = "embed_mse"\nmatch = "minilm"\npaced = {}', "no queries"),
        ('loss = "kl_div"\npaced = { c = 1 }', "paced.c"),
        ('loss = "kl_div"\npaced = { a = -1 }', "paced.a"),
    ],
)
def test_a_wrong_pace_is_refused(text, said):
    with pytest.raises(ValueError, match=said):
        stage(text)
