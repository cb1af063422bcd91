"""Value and gradient of every golden record whose loss exists, in float64."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from rerankdistill.contracts import Scores, Vectors
from rerankdistill.kinds import open_kind

RECORDS = json.loads(Path(__file__).with_name("golden_losses.json").read_text("utf-8"))

KIND = {
    "margin_mse_given_pairs": ("margin_mse", {"pairs": "given"}),
    "margin_mse_all_pairs": ("margin_mse", {"pairs": "all"}),
    "margin_mse_all_ordered_n2": ("margin_mse", {"pairs": "all_n2"}),
    "kl_div": ("kl_div", {}),
    "tct_colbert_kl": ("kl_div", {}),
    "ranknet": ("ranknet", {"reduction": "mean_pairs"}),
    "localized_contrastive": ("localized_contrastive", {}),
    "infonce_in_batch": ("infonce", {}),
    "infonce_same_tower": ("infonce", {}),
    "infonce_false_negative_mask": ("infonce", {}),
    "stella_cosine": ("embed_cosine", {}),
    "stella_similarity": ("similarity_mse", {}),
    "embed_mse": ("embed_mse", {}),
}
OPTIONS = {"tau", "tau_student", "tau_teacher", "multiplier", "sigma", "reduction", "dims"}
MINE = [record for record in RECORDS if record["name"] in KIND]


def tensor(values: Any) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def on_lists(inputs: dict[str, Any], params: dict[str, Any]) -> tuple[Scores, dict[str, torch.Tensor]]:
    student = tensor(inputs["student"]).requires_grad_()
    made = Scores(student, positive=torch.full((len(student),), params.get("pos", 0)))
    if "teacher" in inputs:
        made.teacher = tensor(inputs["teacher"])
    if "mask" in inputs:
        made.valid = tensor(inputs["mask"]).bool()
    return made, {"student": student}


def on_vectors(inputs: dict[str, Any]) -> tuple[Scores, dict[str, torch.Tensor]]:
    student = tensor(inputs["student"]).requires_grad_()
    made = Scores(torch.empty(0, 0), vectors=Vectors(student, tensor(inputs["teacher"])))
    return made, {"student": student}


def in_batch(inputs: dict[str, Any], params: dict[str, Any]) -> tuple[Scores, dict[str, torch.Tensor]]:
    """Vectors to a score matrix: columns are positives, then hard negatives, then the other queries."""
    leaves = {name: tensor(inputs[name]).requires_grad_() for name in ("q", "p", "n") if name in inputs}
    groups = [leaves[name] for name in ("p", "n") if name in leaves]
    if params.get("same_tower"):
        groups.append(leaves["q"])
    queries, documents = leaves["q"], torch.cat(groups)
    if params.get("sim", "cos") == "cos":
        queries, documents = normalize(queries), normalize(documents)
    b = len(queries)
    valid = torch.ones(b, len(documents), dtype=torch.bool)
    if params.get("same_tower"):
        valid[:, -b:] = ~torch.eye(b, dtype=torch.bool)
    if "keep" in inputs:
        valid = tensor(inputs["keep"]).bool()
        valid[:, :b] |= torch.eye(b, dtype=torch.bool)
    return Scores(queries @ documents.T, valid=valid, positive=torch.arange(b)), leaves


@pytest.mark.parametrize("record", MINE, ids=[record["id"] for record in MINE])
def test_value_and_gradient_are_the_golden_ones(record: dict[str, Any]) -> None:
    kind, options = KIND[record["name"]]
    params = record["params"]
    loss = open_kind("losses", kind)(**{**options, **{k: v for k, v in params.items() if k in OPTIONS}})
    if record["case"] == "E":
        scores, leaves = in_batch(record["inputs"], params)
    elif record["case"] == "T":
        scores, leaves = on_vectors(record["inputs"])
    else:
        scores, leaves = on_lists(record["inputs"], params)
    total, weight = loss(scores)
    value = total / weight
    value.backward()
    golden = record["grad_student"]
    golden = golden if isinstance(golden, dict) else {"student": golden}
    np.testing.assert_allclose(value.item(), record["value"], rtol=1e-9)
    assert set(golden) == set(leaves)
    for name, leaf in leaves.items():
        assert leaf.grad is not None
        np.testing.assert_allclose(leaf.grad.numpy(), golden[name], rtol=0, atol=1e-9)


def test_every_loss_of_the_golden_file_that_exists_is_held_to_it() -> None:
    assert len(MINE) >= 30
    assert {KIND[record["name"]][0] for record in MINE} == {kind for kind, _ in KIND.values()}
