"""Numbers small enough for a pencil; the same ones stand in the losses' docstrings."""

from __future__ import annotations

import math

import pytest
import torch

from rerankdistill.contracts import Scores, Vectors
from rerankdistill.kinds import open_kind

LN2, LN3 = math.log(2), math.log(3)


def on_vectors(kind, student, teacher):
    pair = Vectors(torch.tensor(student), torch.tensor(teacher))
    total, weight = open_kind("losses", kind)()(Scores(torch.empty(0, 0), vectors=pair))
    return (total / weight).item()


def test_margin_mse(make, mean_of):
    scores = make([[2.0, 1.0]], [[3.0, 1.0]], [0])
    assert mean_of(open_kind("losses", "margin_mse")(), scores).item() == pytest.approx(1.0)
    assert mean_of(open_kind("losses", "margin_mse")(fit=True), scores).item() == pytest.approx(0.0)
    assert mean_of(open_kind("losses", "margin_mse")(scale=0.5), scores).item() == pytest.approx(0.0)


def test_kl_div(make, mean_of):
    scores = make([[0.0, 0.0]], [[LN3, 0.0]], label=[[0.0, 1.0]])
    expected = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert expected == pytest.approx(0.1308, abs=1e-4)
    assert mean_of(open_kind("losses", "kl_div")(), scores).item() == pytest.approx(expected)
    # half the label: target (3/8, 5/8)
    mixed = 0.375 * math.log(0.75) + 0.625 * math.log(1.25)
    assert mean_of(open_kind("losses", "kl_div")(alpha=0.5), scores).item() == pytest.approx(mixed)
    # a share that float32 cannot hold is not rounded on its way
    tenth = 0.9 * 0.75, 0.9 * 0.25 + 0.1
    exact = sum(p * math.log(2 * p) for p in tenth)
    assert mean_of(open_kind("losses", "kl_div")(alpha=0.1), scores).item() == pytest.approx(exact, rel=1e-13)
    # nothing but the label: cross-entropy against the second document
    assert mean_of(open_kind("losses", "kl_div")(alpha=1), scores).item() == pytest.approx(LN2)


def test_infonce(make, mean_of):
    loss = open_kind("losses", "infonce")(tau=1)
    assert mean_of(loss, make([[LN3, 0.0]], positive=[0])).item() == pytest.approx(-math.log(0.75))
    assert -math.log(0.75) == pytest.approx(0.2877, abs=1e-4)


def test_localized_contrastive(make, mean_of):
    loss = open_kind("losses", "localized_contrastive")()
    assert mean_of(loss, make([[LN2, 0.0, 0.0]], positive=[0])).item() == pytest.approx(LN2)


def test_ranknet_is_in_natural_logarithms_not_base_2(make, mean_of):
    loss = open_kind("losses", "ranknet")()
    assert mean_of(loss, make([[LN3, 0.0]], [[1.0, 0.0]])).item() == pytest.approx(math.log(4 / 3))
    assert mean_of(loss, make([[0.0, 0.0]], [[1.0, 0.0]])).item() == pytest.approx(LN2)


def test_vectors():
    assert on_vectors("embed_cosine", [[1.0, 0.0]], [[1.0, 1.0]]) == pytest.approx(1 - 1 / math.sqrt(2))
    assert on_vectors("embed_mse", [[1.0, 0.0]], [[0.0, 0.0]]) == pytest.approx(0.5)
    assert on_vectors("similarity_mse", [[1.0, 0.0], [1.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]]) == pytest.approx(0.5)
