"""A student's vectors go through a learned layer in a stage, and come out of it alone or with the layer."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_lessons import DOCS

from rerankdistill.errors import CardError
from rerankdistill.kinds import open_kind
from rerankdistill.losses.combine import parse
from rerankdistill.students.data import Representations
from rerankdistill.students.kinds import bi_encoder, cross_encoder
from rerankdistill.students.projection import projected
from rerankdistill.students.train import StageOptions, train

TEXTS = list(DOCS.values())
WIDE = np.random.default_rng(3).normal(size=(len(TEXTS), 48)).astype(np.float32)


def loss_of(text):
    return parse(text, {}, lambda name: open_kind("losses", name))


def matched(tiny, folder, keep=False, only=False, text="embed_cosine", width=48):
    torch.manual_seed(1)
    student = bi_encoder.Kind.create(bi_encoder.BiEncoderOptions(init=str(tiny)), "cpu")
    before = [weight.detach().clone() for weight in student.network[0].parameters()]
    options = StageOptions(steps=40, batch=16, learning_rate=5e-3)
    with projected(student, width, keep, only):
        result = train(student, Representations(TEXTS, WIDE), loss_of(text), options, folder / "work", 1)
    student.save(folder / "saved")
    moved = any(not torch.equal(one, other) for one, other in zip(before, student.network[0].parameters(), strict=True))
    return student, result, moved


def test_a_kept_layer_is_part_of_a_plain_folder_that_has_the_teachers_dimension(tiny, tmp_path):
    from sentence_transformers import SentenceTransformer

    student, result, moved = matched(tiny, tmp_path, keep=True)
    assert result.history[-1]["loss"] < 0.7 * result.history[0]["loss"], "48 dimensions are learnt from 32"
    assert moved
    plain = SentenceTransformer(str(tmp_path / "saved"), device="cpu")
    assert plain.get_embedding_dimension() == 48
    found = plain.encode(TEXTS, normalize_embeddings=True)
    np.testing.assert_allclose(found, student.encoder().encode(TEXTS, "doc"), atol=1e-5)
    unit = WIDE / np.linalg.norm(WIDE, axis=1, keepdims=True)
    assert (found * unit).sum(1).mean() > 0.3
    again = bi_encoder.Kind.open(tmp_path / "saved", bi_encoder.BiEncoderOptions(init=str(tiny)), "cpu")
    assert again.encoder().dimension == 48


def test_a_layer_that_is_not_kept_leaves_a_student_of_its_own_dimension_that_has_learnt(tiny, tmp_path):
    from sentence_transformers import SentenceTransformer

    _, _, moved = matched(tiny, tmp_path)
    plain = SentenceTransformer(str(tmp_path / "saved"), device="cpu")
    assert (plain.get_embedding_dimension(), len(plain)) == (32, 2)
    assert moved


def test_the_layer_alone_learns_where_that_is_asked_and_the_rest_can_learn_again_afterwards(tiny, tmp_path):
    student, _, moved = matched(tiny, tmp_path, keep=True, only=True)
    assert not moved
    assert all(weight.requires_grad for weight in student.network.parameters())


def test_vectors_are_shortened_by_losses_on_relations(tiny, tmp_path):
    _, result, _ = matched(tiny, tmp_path, keep=True, only=True, text="similarity_mse", width=8)
    assert result.history[-1]["loss"] < result.history[0]["loss"]
    again = bi_encoder.Kind.open(tmp_path / "saved", bi_encoder.BiEncoderOptions(init=str(tiny)), "cpu")
    assert again.encoder().encode(TEXTS, "doc").shape[1] == 8


def test_a_student_without_vectors_of_its_own_is_not_projected(tiny_ce):
    student = cross_encoder.Kind.create(cross_encoder.CrossEncoderOptions(init=str(tiny_ce)), "cpu")
    with pytest.raises(CardError, match="kind 'bi_encoder'"), projected(student, 8, keep=False, only=False):
        pass
