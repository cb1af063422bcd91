"""Matching the inside of a model: the right layers, the right tokens, and nothing left of it in the student."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_lessons import DOCS, QUERIES
from tiny_models import SPECIAL, tiny_bi_encoder, tokenizer, words_of

from rerankdistill.errors import CardError
from rerankdistill.kinds import open_kind
from rerankdistill.losses.combine import parse
from rerankdistill.students.batch import Budget
from rerankdistill.students.kinds.bi_encoder import BiEncoderOptions
from rerankdistill.students.kinds.bi_encoder import Kind as BiEncoder
from rerankdistill.students.kinds.cross_encoder import CrossEncoderOptions
from rerankdistill.students.kinds.cross_encoder import Kind as CrossEncoder
from rerankdistill.students.layerwise import Inner, open_inside
from rerankdistill.students.train import StageOptions, loss_curve, train

TEXTS = [*list(DOCS.values())[:24], "bridge", *QUERIES[:7]]
BUDGET = Budget(8192, 100_000)
LEVELS = {"hidden": "embed_mse", "relations": "kl_div", "attention": "pointwise_mse"}


def narrow(folder: Path) -> Path:
    """A plain encoder of half the width, two layers and the same vocabulary."""
    from transformers import BertConfig, BertModel

    torch.manual_seed(9)
    vocabulary = SPECIAL + words_of([*DOCS.values(), *QUERIES])
    sizes = {"hidden_size": 16, "num_attention_heads": 4, "num_hidden_layers": 2, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=len(vocabulary), max_position_embeddings=128, **sizes)).save_pretrained(folder)
    tokenizer(folder, vocabulary).save_pretrained(folder)
    return folder


def bi(init, **options):
    torch.manual_seed(1)
    return BiEncoder.create(BiEncoderOptions(init=str(init), **options), "cpu")


def inner(tiny, level, **more):
    return Inner(TEXTS, open_inside(str(tiny), None, bi_encoder=True), level, 64, **more)


def loss_of(level):
    return parse(LEVELS[level], {}, lambda name: open_kind("losses", name))


def value(student, data, loss, rows=range(8), budget=BUDGET):
    total, weight = loss(data.collate(list(rows)).scores(student, budget))
    return float(total.detach() / weight)


@pytest.mark.parametrize("level", LEVELS)
def test_a_copy_has_nothing_to_learn_and_a_part_of_it_has(tiny, level):
    data, loss = inner(tiny, level), loss_of(level)
    whole, part = bi(tiny), bi(tiny, layers=1)
    assert data.beside(whole) is None
    assert value(whole, data, loss) == pytest.approx(0, abs=1e-6)
    assert value(part, data, loss) > 1e-4


@pytest.mark.parametrize("level", LEVELS)
def test_how_texts_are_batched_changes_nothing(tiny, level):
    data, loss, student = inner(tiny, level), loss_of(level), bi(tiny, layers=1)
    rows = [0, 24, 5, 25]  # a text of one word among longer ones
    together = value(student, data, loss, rows)
    assert value(student, data, loss, rows, Budget(1, 1)) == pytest.approx(together, rel=1e-5)
    scores = data.collate(rows).scores(student, BUDGET)
    if level != "hidden":
        lengths = [len(data.teacher.tokenizer(TEXTS[row])["input_ids"]) for row in rows]
        assert scores.valid.sum(1).tolist() == scores.scored.sum(1).tolist()
        assert sorted(set(scores.valid.sum(1).tolist())) == sorted(set(lengths)), "padding is no token"
        times = (
            3 if level == "relations" else 1
        )  # queries, keys and values of the last layer; of one layer its attention
        assert len(scores.student) == times * 2 * sum(lengths), "two heads"


def test_a_layer_follows_the_one_at_its_height_and_embeddings_the_embeddings(tiny):
    data = inner(tiny, "hidden")
    data.teacher.body.to("cpu")
    vectors = data.collate([0]).scores(bi(tiny, layers=1), BUDGET).vectors
    features = data.teacher.tokenizer([TEXTS[0]], return_tensors="pt")
    states = data.teacher.body(**features, output_hidden_states=True).hidden_states
    assert len(states) == 4
    torch.testing.assert_close(vectors.teacher, torch.cat([states[0][0], states[3][0]]), atol=1e-6, rtol=0)


def test_relations_are_those_of_the_last_layers_queries_keys_and_values(tiny):
    data = inner(tiny, "relations")
    found = data.collate([0]).scores(bi(tiny), BUDGET)
    body, features = data.teacher.body, data.teacher.tokenizer([TEXTS[0]], return_tensors="pt")
    state = body(**features, output_hidden_states=True).hidden_states[-2][0]
    attention = body.encoder.layer[-1].attention.self
    rows = []
    for matrix in (attention.query, attention.key, attention.value):
        for head in matrix(state).chunk(2, -1):
            rows.append(head @ head.T / 16**0.5)
    n = features["input_ids"].shape[1]
    torch.testing.assert_close(found.teacher[:, :n], torch.cat(rows), atol=1e-5, rtol=0)


def test_attention_of_a_layer_follows_that_of_the_layer_at_its_height(tiny, tmp_path):
    data = Inner(TEXTS, open_inside(str(tiny), None, bi_encoder=True), "attention", 64)
    student = bi(tiny, layers=[0, 1])
    found = data.collate([0]).scores(student, BUDGET)
    features = data.teacher.tokenizer([TEXTS[0]], return_tensors="pt")
    states = data.teacher.body(**features, output_hidden_states=True).hidden_states
    rows = []
    for at in (1, 2):  # of three, by round(1 * 3 / 2) - 1 and round(2 * 3 / 2) - 1
        attention = data.teacher.body.encoder.layer[at].attention.self
        queries, keys = (matrix(states[at][0]).chunk(2, -1) for matrix in (attention.query, attention.key))
        rows += [query @ key.T / 16**0.5 for query, key in zip(queries, keys, strict=True)]
    n = features["input_ids"].shape[1]
    torch.testing.assert_close(found.teacher[:, :n], torch.cat(rows), atol=1e-5, rtol=0)


@pytest.mark.parametrize("level", LEVELS)
def test_a_narrower_student_learns_and_keeps_no_map(tiny, tmp_path, level):
    student = bi(narrow(tmp_path / "narrow"))
    names = set(student.network.state_dict())
    settings = StageOptions(steps=40, batch=8, learning_rate=3e-3)
    data = inner(tiny, level)
    result = train(student, data, loss_of(level), settings, tmp_path / "checkpoints", 1)
    curve = [each for _, each in loss_curve(result.history)]
    assert np.mean(curve[-8:]) < 0.7 * np.mean(curve[:8]), curve
    assert (data.learnt is not None) == (level == "hidden")
    assert set(student.network.state_dict()) == names
    assert not any(each.requires_grad for each in data.teacher.body.parameters())


@pytest.mark.parametrize("level", LEVELS)
def test_a_training_that_was_cut_goes_on_as_if_it_had_not_been(tiny, tmp_path, level):
    init = narrow(tmp_path / "narrow")
    settings = StageOptions(steps=8, batch=4, learning_rate=3e-3, evaluate_every=4)

    def run(folder):
        student = bi(init)
        result = train(student, inner(tiny, level), loss_of(level), settings, folder, 1)
        return loss_curve(result.history), student.network.state_dict()

    curve, weights = run(tmp_path / "whole")
    shutil.copytree(tmp_path / "whole" / "checkpoint-4", tmp_path / "cut" / "checkpoint-4")
    again, others = run(tmp_path / "cut")
    assert again == curve
    for name, each in weights.items():
        torch.testing.assert_close(others[name], each, atol=1e-6, rtol=0)


def test_a_cross_encoder_learns_from_a_cross_encoder(tiny_ce, tmp_path):
    student = CrossEncoder.create(CrossEncoderOptions(init=str(tiny_ce), layers=1), "cpu")
    data = Inner(TEXTS, open_inside(str(tiny_ce), None, bi_encoder=False), "hidden", 64)
    before = value(student, data, loss_of("hidden"))
    train(student, data, loss_of("hidden"), StageOptions(steps=12, batch=8, learning_rate=3e-3), tmp_path, 1)
    assert value(student, data, loss_of("hidden")) < before


def test_another_vocabulary_is_refused_before_anything_is_learnt(tiny, tmp_path):
    other = tiny_bi_encoder(tmp_path / "other", ["some other words"], layers=1)
    with pytest.raises(CardError, match="vocabularies"):
        inner(tiny, "hidden").beside(bi(other))


@pytest.mark.parametrize("level", LEVELS)
def test_nonsense_is_what_belongs_to_others_and_the_same_each_time(tiny, level):
    student = bi(tiny)
    plain, mixed = (inner(tiny, level, shuffled=seed).collate([3, 24, 1]) for seed in (None, 5))
    if level == "hidden":
        one, other = (each.scores(student, BUDGET).vectors.teacher for each in (plain, mixed))
        assert not torch.equal(one, other)
        torch.testing.assert_close(one.sum(0), other.sum(0), atol=1e-3, rtol=0)
        return
    one, other = (each.scores(student, BUDGET) for each in (plain, mixed))
    assert not torch.equal(one.teacher, other.teacher)
    sums = [torch.where(each.valid, each.teacher, 0.0).sum(1) for each in (one, other)]
    torch.testing.assert_close(*sums, atol=1e-3, rtol=0)
    torch.testing.assert_close(other.teacher, mixed.scores(student, BUDGET).teacher)
