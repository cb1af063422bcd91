"""Which student a folder means, and that what computes it fast says what the library says."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from rerankdistill import devices
from rerankdistill.encoding import load_bi_encoder, tokenise
from rerankdistill.errors import UsageError
from rerankdistill.serving import unpadded
from rerankdistill.serving.opening import find, load_models
from rerankdistill.serving.settings import Keys, Settings
from rerankdistill.serving.torch_network import TorchScores, TorchVectors

CPU = devices.Device("cpu", "float32")
TEXTS = ["", "rain", "rain sun cloud wind " * 12, "a cat", "stock market " * 9, "bond", "rain sun cloud wind " * 20]


def work(tmp_path, models):
    for name, model in models.items():
        shutil.copytree(model, tmp_path / "students" / name)
    return tmp_path


def names(places):
    return [place.name if place else None for place in places]


def test_the_students_of_a_pipeline_are_served_and_not_their_controls(tmp_path, tiny_bert, tiny_cross):
    models = {"small-seed1": tiny_bert, "small-seed2": tiny_bert, "small-control-seed1": tiny_bert}
    place = work(tmp_path, {**models, "pairs-seed1": tiny_cross})
    assert names(find(place)) == ["small-seed1", "pairs-seed1"]
    assert names(find(place, "small-control")) == ["small-control-seed1", None]
    assert names(find(place, "small-seed2")) == ["small-seed2", None]


def test_two_students_are_asked_about(tmp_path, tiny_bert):
    with pytest.raises(UsageError, match="several"):
        find(work(tmp_path, {"one-seed1": tiny_bert, "two-seed1": tiny_bert}))


@pytest.mark.parametrize("head", ["mean", "cls"])
def test_bert_without_padding_is_the_same_bert(tiny_bert, head):
    model = load_bi_encoder(tiny_bert)
    model[1].pooling_mode = head
    tokens = tokenise(model.tokenizer, TEXTS, 64)
    make = {"mean": unpadded.mean_head, "cls": unpadded.first_head}[head]
    mine = unpadded.Unpadded(model[0].model, make(True), "float32")(tokens)
    np.testing.assert_allclose(mine, TorchVectors(model, CPU, True)(tokens), atol=1e-5)


def test_a_cross_encoder_without_padding_is_the_same_one(tiny_cross):
    from sentence_transformers import CrossEncoder

    model = CrossEncoder(str(tiny_cross), device="cpu")
    tokens = tokenise(model.tokenizer, ["rain"] * len(TEXTS), 64, TEXTS)
    mine = unpadded.Unpadded(model.model.bert, unpadded.score_head(model.model), "float32")(tokens)
    np.testing.assert_allclose(mine, TorchScores(model.model, CPU)(tokens), atol=1e-5)


def test_the_fast_way_is_taken_only_where_it_agrees(tiny_bert, monkeypatch):
    settings = Settings(place=Path(tiny_bert), device="cpu", dtype="float32")
    assert isinstance(load_models(settings).embedder.networks["doc"].many, unpadded.Unpadded)
    monkeypatch.setattr(unpadded, "agrees", lambda *_: False)
    assert not isinstance(load_models(settings).embedder.networks["doc"].many, unpadded.Unpadded)


def test_the_packaged_model_is_the_same_in_every_precision(minilm):
    model = load_bi_encoder(minilm)
    tokens = tokenise(model.tokenizer, ["what is rain", "water that falls from clouds " * 8], 256)
    wanted = TorchVectors(model, CPU, True)(tokens)
    for dtype in ("float32", "bfloat16"):
        mine = unpadded.Unpadded(model[0].model, unpadded.mean_head(True), dtype)(tokens)
        assert (mine * wanted).sum(1).min() >= (0.99999 if dtype == "float32" else 0.999)


def test_keys_are_told_apart_to_the_last_letter():
    keys = Keys(["one-long-enough-key", "another-long-enough-key"])
    assert keys.accept(b"Bearer one-long-enough-key")
    assert keys.accept(b"bearer another-long-enough-key")
    for header in (
        None,
        b"",
        b"Bearer ",
        b"Bearer one-long-enough-kez",
        b"one-long-enough-key",
        b"Basic one-long-enough-key",
    ):
        assert not keys.accept(header)
    assert not Keys([]).accept(b"Bearer ")


def test_a_key_that_is_too_short_is_none(tmp_path):
    (tmp_path / "keys").write_text("short\n")
    with pytest.raises(UsageError, match="fewer than"):
        Settings(place=tmp_path, key_file=tmp_path / "keys").keys()
