"""What is trained of a student: adapters alone, not the lowest layers; and which vector of its tokens is a text's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_lessons import DOCS, QUERIES, lists

from rerankdistill.errors import CardError, DataError
from rerankdistill.kinds import open_kind
from rerankdistill.losses.combine import parse
from rerankdistill.students.kinds.bi_encoder import BiEncoderOptions
from rerankdistill.students.kinds.bi_encoder import Kind as BiEncoder
from rerankdistill.students.kinds.cross_encoder import CrossEncoderOptions
from rerankdistill.students.kinds.cross_encoder import Kind as CrossEncoder
from rerankdistill.students.train import StageOptions, loss_curve, train

TEXTS = list(DOCS.values())
LORA = {"r": 4, "alpha": 8}


def bi(tiny, **options):
    torch.manual_seed(1)
    return BiEncoder.create(BiEncoderOptions(init=str(tiny), **options), "cpu")


def cross(tiny_ce, **options):
    torch.manual_seed(1)
    return CrossEncoder.create(CrossEncoderOptions(init=str(tiny_ce), **options), "cpu")


def taught(student, folder, steps=20):
    loss = parse("kl_div", {"kl_div": {"tau_student": 0.1}}, lambda name: open_kind("losses", name))
    stage = StageOptions(steps=steps, batch=8, learning_rate=5e-3, evaluate_every=10)
    result = train(student, lists(student.layout), loss, stage, folder, 1)
    curve = [value for _, value in loss_curve(result.history)]
    assert np.mean(curve[-5:]) < np.mean(curve[:5])
    return student


def base_weights(model):
    """By the names that they have without adapters."""
    state = model.state_dict()
    return {name.replace(".base_layer.", "."): value.clone() for name, value in state.items() if "lora_" not in name}


def test_an_adapted_bi_encoder_is_saved_as_a_plain_folder_with_its_exits(tiny, tmp_path):
    from sentence_transformers import SentenceTransformer

    student = bi(tiny, lora=LORA, exits=(1,))
    before = base_weights(student.network)
    taught(student, tmp_path / "work")
    for name, value in base_weights(student.network).items():
        assert torch.equal(value, before[name]), f"{name} was to stay as it is"
    student.save(tmp_path / "saved")
    plain = SentenceTransformer(str(tmp_path / "saved"), device="cpu")
    assert not [name for name in plain.state_dict() if "lora" in name]
    assert base_weights(plain).keys() == before.keys()
    wanted = student.encoder().encode(TEXTS, "doc")
    np.testing.assert_allclose(plain.encode_document(TEXTS, normalize_embeddings=True), wanted, atol=1e-5)
    assert np.abs(wanted - bi(tiny).encoder().encode(TEXTS, "doc")).max() > 1e-2
    early = SentenceTransformer(str(tmp_path / "saved/exits/1"), device="cpu")
    student.network.eval()
    features = {name: torch.tensor(value) for name, value in plain.tokenizer(TEXTS[:1]).items()}
    first = student._by_layer(features)[0, 0].detach().numpy()
    np.testing.assert_allclose(early.encode(TEXTS[:1])[0], first, atol=1e-5)
    again = BiEncoder.open(tmp_path / "saved", student.options, "cpu")
    again.ready(training=True)
    assert all("lora_" in name for name, value in again.network.named_parameters() if value.requires_grad)
    np.testing.assert_allclose(again.encoder().encode(TEXTS, "doc"), wanted, atol=1e-5)


def test_an_adapted_cross_encoder_learns_its_head_whole(tiny_ce, tmp_path):
    """A head is new: a frozen random one with an adapter beside it learns next to nothing."""
    from sentence_transformers import CrossEncoder as Plain

    student = cross(tiny_ce, lora=LORA)
    student.ready(training=True)
    trained = {name for name, value in student.network.named_parameters() if value.requires_grad}
    assert {"0.model.classifier.weight", "0.model.classifier.bias"} == {name for name in trained if "lora_" not in name}
    taught(student, tmp_path / "work")
    student.save(tmp_path / "saved")
    pairs = [(query, text) for query in QUERIES[:3] for text in TEXTS[:4]]
    plain = Plain(str(tmp_path / "saved"), device="cpu", activation_fn=torch.nn.Identity())
    np.testing.assert_allclose(plain.predict(pairs), student.score(pairs), atol=1e-4)
    assert np.abs(student.score(pairs) - cross(tiny_ce).score(pairs)).max() > 1e-2


def test_a_cut_training_with_adapters_goes_on_where_it_was(tiny, tmp_path):
    import shutil

    whole = taught(bi(tiny, lora=LORA), tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    shutil.rmtree(tmp_path / "cut/checkpoint-20")
    resumed = taught(bi(tiny, lora=LORA), tmp_path / "cut")
    one, other = (student.encoder().encode(TEXTS, "doc") for student in (whole, resumed))
    np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("kind", ["bi", "cross"])
def test_frozen_layers_stay_and_the_others_learn(kind, tiny, tiny_ce, tmp_path):
    student = bi(tiny, freeze=1) if kind == "bi" else cross(tiny_ce, freeze=1)
    before = base_weights(student.network)
    taught(student, tmp_path)
    same = {name for name, value in base_weights(student.network).items() if torch.equal(value, before[name])}
    low = {name for name in before if "embeddings." in name or ".layer.0." in name}
    assert low <= same
    assert not {name for name in before if ".layer.1." in name and name.endswith("weight")} & same


def test_a_layer_that_is_not_there_is_told(tiny):
    with pytest.raises(DataError, match="the model has no such layer"):
        bi(tiny, lora={"targets": ["q_proj"]}).ready(training=True)
    with pytest.raises(DataError, match="the model has 3 layers"):
        bi(tiny, freeze=4)


def test_the_first_token_can_stand_for_the_text_and_is_saved_so(tiny, tmp_path):
    from sentence_transformers import SentenceTransformer

    student = bi(tiny, pooling="cls")
    features = dict(student.network.tokenizer(TEXTS[:2], return_tensors="pt", padding=True))
    first = student.network[0].model(**features).last_hidden_state[:, 0]
    found = student.encoder().encode(TEXTS[:2], "doc")
    np.testing.assert_allclose(found, torch.nn.functional.normalize(first, dim=-1).detach(), atol=1e-5)
    student.save(tmp_path / "saved")
    plain = SentenceTransformer(str(tmp_path / "saved"), device="cpu")
    np.testing.assert_allclose(plain.encode(TEXTS[:2], normalize_embeddings=True), found, atol=1e-5)
    assert np.abs(bi(tiny).encoder().encode(TEXTS[:2], "doc") - found).max() > 1e-2


def test_a_model_that_pools_into_something_wider_keeps_its_way(tiny, tmp_path):
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Pooling, Transformer

    body = Transformer(str(tiny.with_name("bi-raw")))
    wide = SentenceTransformer(modules=[body, Pooling(32, ("cls", "mean"))], device="cpu")
    wide.save_pretrained(str(tmp_path / "wide"), create_model_card=False)
    with pytest.raises(CardError, match="does not pool into one vector"):
        bi(tmp_path / "wide", pooling="cls")
