"""Value and gradient of every golden record whose loss exists, in float64."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from rerankdistill.contracts import Scores, Vectors
from rerankdistill.kinds import open_kind

RECORDS = json.loads(Path(__file__).with_name("golden_losses.json").read_text("utf-8"))

KIND: dict[str, tuple[str, dict[str, Any]]] = {
    "margin_mse_given_pairs": ("margin_mse", {"pairs": "given"}),
    "margin_mse_all_pairs": ("margin_mse", {"pairs": "all"}),
    "margin_mse_all_ordered_n2": ("margin_mse", {"pairs": "all_n2"}),
    "constant_margin_mse": ("margin_mse", {"pairs": "all"}),
    "kl_div": ("kl_div", {}),
    "tct_colbert_kl": ("kl_div", {}),
    "reverse_kl": ("divergence", {"form": "reverse"}),
    "js_div": ("divergence", {"form": "js"}),
    "symmetric_kl": ("divergence", {"form": "symmetric"}),
    "skew_kl": ("divergence", {"form": "skew"}),
    "taid_interpolated_kl": ("taid", {}),
    "listnet": ("listnet", {}),
    "list_mle": ("list_mle", {}),
    "list_mle_mean": ("list_mle", {"positions": "mean"}),
    "p_list_mle": ("list_mle", {"positions": "weighted"}),
    "plackett_luce_distillation": ("plackett_luce", {}),
    "ranknet": ("ranknet", {"reduction": "mean_pairs"}),
    "ranknet_soft_targets": ("ranknet", {"targets": "soft", "reduction": "mean_pairs"}),
    "weighted_ranknet_first": ("ranknet", {"weights": "ranks"}),
    "lambda_loss": ("lambda_loss", {"grades": "label", "within": "both", "reduction": "mean_pairs"}),
    "adr_mse": ("adr_mse", {}),
    "approx_ndcg": ("approx_rank", {"measure": "ndcg", "grades": "label"}),
    "approx_mrr": ("approx_rank", {"measure": "mrr", "grades": "label"}),
    "pearson": ("pearson", {}),
    "pointwise_bce_soft": ("pointwise_bce", {}),
    "pointwise_mse": ("pointwise_mse", {}),
    "localized_contrastive": ("localized_contrastive", {}),
    "infonce_in_batch": ("infonce", {}),
    "infonce_same_tower": ("infonce", {}),
    "infonce_false_negative_mask": ("infonce", {}),
    "bixse": ("bixse", {}),
    "stella_cosine": ("embed_cosine", {}),
    "stella_similarity": ("similarity_mse", {}),
    "embed_mse": ("embed_mse", {}),
}
CALLED = {("skew_kl", "alpha"): "skew", ("taid_interpolated_kl", "lambda"): "share"}
"""A record's parameter whose name another option of ours has, or that Python keeps for itself."""
MEANS = {
    "column order": "column",
    "average rank": "average",
    "2^y-1": "exponential",
    "y": "linear",
    "sum_docs_mean_queries": "mean_query",
}
SAYS_NO_MORE = {"pos", "sim", "same_tower", "hard_negatives", "weight", "log", "pos_first", "target"}
"""What an adapter below sees to, or what only describes the formula."""
MINE = [record for record in RECORDS if record["name"] in KIND]


def options_of(record: dict[str, Any]) -> dict[str, Any]:
    name, params = record["name"], record["params"]
    found = dict(KIND[name][1])
    for key, value in params.items():
        if key not in SAYS_NO_MORE and (name, key) != ("lambda_loss", "gain"):
            found[CALLED.get((name, key), key)] = MEANS.get(value, value) if isinstance(value, str) else value
    if params.get("pos_first") is not None:
        found["label_first"] = True
    return found


def tensor(values: Any) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def on_lists(inputs: dict[str, Any], params: dict[str, Any]) -> tuple[Scores, dict[str, torch.Tensor]]:
    student = tensor(inputs["student"]).requires_grad_()
    column = params.get("pos", params.get("pos_first")) or 0
    made = Scores(student, positive=torch.full((len(student),), column))
    if "teacher" in inputs:
        made.teacher = tensor(inputs["teacher"])
    if "labels" in inputs:
        made.label = tensor(inputs["labels"])
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
    label = torch.zeros(b, len(documents), dtype=torch.float64)
    label[:, :b] = torch.diag(tensor(inputs.get("label", [1.0] * b)))
    return Scores(queries @ documents.T, valid=valid, positive=torch.arange(b), label=label), leaves


@pytest.mark.parametrize("record", MINE, ids=[record["id"] for record in MINE])
def test_value_and_gradient_are_the_golden_ones(record: dict[str, Any]) -> None:
    params = record["params"]
    loss = open_kind("losses", KIND[record["name"]][0])(**options_of(record))
    if record["case"] == "E":
        scores, leaves = in_batch(record["inputs"], params)
    elif record["case"] == "T":
        scores, leaves = on_vectors(record["inputs"])
    else:
        scores, leaves = on_lists(record["inputs"], params)
    total, weight = loss(scores)
    value = total / weight
    if params.get("log") == "binary":  # ours are natural; the record's gradient carries the factor too
        value = value / math.log(2)
    value.backward()
    golden = record["grad_student"]
    golden = golden if isinstance(golden, dict) else {"student": golden}
    np.testing.assert_allclose(value.item(), record["value"], rtol=1e-9)
    assert set(golden) == set(leaves)
    for name, leaf in leaves.items():
        assert leaf.grad is not None
        np.testing.assert_allclose(leaf.grad.numpy(), golden[name], rtol=0, atol=1e-9)


def test_every_loss_of_the_golden_file_that_exists_is_held_to_it() -> None:
    assert len(MINE) == 99
    assert {KIND[record["name"]][0] for record in MINE} == {kind for kind, _ in KIND.values()}
