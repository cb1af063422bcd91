"""Stages on the inside of a teacher walk to their student, and a stage that makes no sense is refused at once."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from helpers_pipeline import card_of, planned, train
from mini_pipeline import VOCABULARY, write_card
from tiny_models import tiny_encoder

from rerankdistill.errors import CardError
from rerankdistill.pipeline.lessons import Lessons
from rerankdistill.pipeline.workspace import Workspace
from rerankdistill.students.batch import list_batch
from rerankdistill.types import Group, Query

SETTINGS = {"steps": 12, "batch": 8, "learning_rate": 1e-3, "evaluate_every": 6}


def small(mini, **stage):
    mini["check"] = False
    mini["students"]["small"].update(control="none", warm_control=False)
    mini["students"]["small"]["stages"][0].update(stage)
    return mini


def curve(out: Path) -> list[float]:
    (result,) = out.glob("students/small-seed1/result.json")
    return [entry["loss"] for entry in json.loads(result.read_text())["history"] if "loss" in entry]


def test_a_stage_follows_layers_of_a_teacher_of_another_depth(mini, teachers, tmp_path):
    stage = {"loss": "kl_div + layer_alignment", "layers_from": str(teachers / "bi.toml"), "layer_pairs": 2}
    train(small(mini, **stage), tmp_path / "a")
    found = curve(tmp_path / "a")
    assert len(found) == 6
    assert np.isfinite(found).all()
    train(mini, tmp_path / "b")
    assert curve(tmp_path / "b") == found, "the same seed drew other layers"


def test_another_layer_teacher_is_another_student_and_a_stage_without_one_never_heard_of_it(mini, teachers, tmp_path):
    name = "student small (seed 1)"
    small(mini, loss="kl_div + layer_alignment", layers_from=str(teachers / "bi.toml"))
    train(mini, tmp_path / "a")
    assert name not in planned(mini, tmp_path / "a", proof=False)
    text = (teachers / "bi.toml").read_text().replace("/teacher", "/student")
    (teachers / "bi2.toml").write_text(text)
    small(mini, layers_from=str(teachers / "bi2.toml"))
    assert name in planned(mini, tmp_path / "a", proof=False)
    small(mini, layers_from="")
    with pytest.raises(CardError, match="names none"):
        planned(mini, tmp_path / "a", proof=False)


def test_a_nonsense_arm_hears_other_documents_layers(mini, teachers, tmp_path):
    small(mini, loss="kl_div + layer_alignment", layers_from=str(teachers / "bi.toml"))
    train(mini, tmp_path / "a")
    ws = Workspace(card_of(mini), tmp_path / "a")
    lessons = Lessons(ws, "small", ws.card.students["small"])
    stage = lessons.student.stages[0]
    plain, mixed = (lessons.data(stage, shuffled, 1, "batch") for shuffled in (False, True))
    examples = [plain.item(row, 0) for row in range(4)]
    one, other = (list_batch(examples, each.texts, "batch", None, each.inside) for each in (plain, mixed))
    assert not np.array_equal(one.layers, other.layers)
    np.testing.assert_array_equal(np.sort(one.layers, -1), np.sort(other.layers, -1))


@pytest.mark.parametrize(
    ("level", "loss"), [("hidden", "embed_mse"), ("relations", "kl_div"), ("attention", "pointwise_mse")]
)
def test_a_matching_stage_looks_inside_and_a_stage_on_lists_goes_on(mini, teachers, tmp_path, level, loss):
    first = {"match": str(teachers / "bi.toml"), "level": level, "loss": loss, "texts": ["docs", "queries"],
             "train": SETTINGS}  # fmt: skip
    small(mini)
    student = mini["students"]["small"]
    student["stages"].insert(0, first)
    heard = train(mini, tmp_path / "out")
    assert any(name.startswith("stage 1") for name in heard.ran)
    (result,) = (tmp_path / "out").glob("stages/*/result.json")
    losses = [entry["loss"] for entry in json.loads(result.read_text())["history"]]
    assert np.isfinite(losses).all()
    assert np.mean(losses[-3:]) < np.mean(losses[:3])
    first["texts"] = ["docs"]
    assert any(name.startswith("stage 1") for name in planned(mini, tmp_path / "out", proof=False))


def test_a_student_that_cannot_give_what_the_loss_reads_is_refused_before_a_teacher_is_asked(mini, models, tmp_path):
    small(mini, loss="two_logit_mse", options={})
    with pytest.raises(CardError, match="two logits, and a student of kind 'bi_encoder'"):
        planned(mini, tmp_path / "out", proof=False)
    small(mini, loss="layer_alignment", layers_from="minilm")
    mini["students"]["small"].update(kind="cross_encoder", options={"init": str(models / "cross")})
    with pytest.raises(CardError, match="scores by layer, and a student of kind 'cross_encoder'"):
        planned(mini, tmp_path / "out", proof=False)


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        ({"level": "hidden"}, "of no model"),
        ({"level": "hidden", "match": "bi.toml", "loss": "kl_div"}, "vectors are matched by a loss on vectors"),
        ({"level": "text", "match": "bi.toml", "loss": "kl_div"}, "vectors are matched by a loss on vectors"),
        ({"level": "relations", "match": "bi.toml", "loss": "embed_mse"}, "by a loss on lists"),
        ({"level": "hidden", "match": "lexical.toml", "loss": "embed_mse"}, "nobody can look into it"),
        ({"loss": "layer_alignment", "layers_from": "cross.toml"}, "is no bi-encoder"),
    ],
)
def test_what_cannot_be_looked_into_is_refused_before_anything_runs(mini, teachers, tmp_path, stage, message):
    cards = {name: str(teachers / stage[name]) for name in ("match", "layers_from") if name in stage}
    small(mini, **{"options": {}, **stage, **cards})
    with pytest.raises(CardError, match=message):
        planned(mini, tmp_path / "out", proof=False)


def late_model(folder: Path) -> str:
    import torch
    from sentence_transformers import MultiVectorEncoder
    from sentence_transformers.base.modules import Normalize, Transformer
    from sentence_transformers.base.modules.dense import Dense
    from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask

    body = Transformer(str(tiny_encoder(folder / "raw", VOCABULARY, seed=5)), query_length=16, document_length=48)
    dense = Dense(32, 8, bias=False, activation_function=torch.nn.Identity(), module_input_name="token_embeddings")
    parts = [body, dense, MultiVectorMask([]), Normalize(module_input_name="token_embeddings")]
    MultiVectorEncoder(modules=parts, device="cpu", similarity_fn_name="maxsim").save(str(folder / "late"))
    return str(folder / "late")


def test_a_late_interaction_teacher_scores_the_whole_batch(mini, teachers, tmp_path):
    card = {"name": "late", "kind": "late_interaction", "model": late_model(tmp_path), "scale": "similarity"}
    write_card(teachers / "late.toml", card)
    small(mini, options={"kl_div": {"tau_student": 0.1, "over": "batch"}})
    mini["students"]["small"]["teacher"] = str(teachers / "late.toml")
    train(mini, tmp_path / "out")
    assert np.isfinite(curve(tmp_path / "out")).all()
    ws = Workspace(card_of(mini), tmp_path / "out")
    lessons = Lessons(ws, "small", ws.card.students["small"])
    data = lessons.data(lessons.student.stages[0], False, 1, "batch")
    batch = data.collate([data.item(row, 0) for row in range(4)])
    assert batch.scored.all(), "documents of other queries were not scored"
    (member,) = lessons.faculty.members
    teacher = lessons.faculty.open(member)
    asked = [Query(str(at), text) for at, text in enumerate(batch.queries)]
    judged = teacher.judge([Group(query, tuple(batch.doc_ids), tuple(batch.docs)) for query in asked])
    np.testing.assert_allclose(batch.teacher.numpy(), np.stack(judged), atol=1e-4)
