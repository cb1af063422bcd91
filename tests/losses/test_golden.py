"""Value and gradient of every golden record, in float64."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from rerankdistill.contracts import Layers, Logits, Preferences, Reading, Scores, Vectors
from rerankdistill.kinds import open_kind
from rerankdistill.losses.combine import parse
from rerankdistill.students.batch import Budget, ListBatch
from rerankdistill.students.train import step_loss

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
    "pairdistill_kl": ("pairwise_preference", {}),
    "pairwise_bce": ("pairwise_preference", {"form": "bce"}),
    "two_logit_mse_inranker": ("two_logit_mse", {}),
    "lead_layer_alignment": ("layer_alignment", {}),
    "infonce_symmetric": ("infonce", {"symmetric": True}),
    "adaptive_relevance_margin": ("adaptive_margin", {}),
    "partial_plackett_luce": ("partial_plackett_luce", {}),
    "syntriever_stage1": ("summed_positives", {}),
    "syntriever_stage1_as_published": ("infonce", {}),
    "soft_nearest_neighbour": ("soft_nearest_neighbour", {}),
    "matryoshka_infonce": ("infonce", {}),
    "stella_relative_similarity": ("relative_similarity", {}),
    "contrastive_kd": ("contrastive_kd", {}),
    "rkd_distance": ("rkd_distance", {}),
}
SUMS = {"stella_total": "10 embed_cosine + 200 similarity_mse + 20 relative_similarity"}
"""What is a weighted sum of losses."""
CALLED = {
    ("skew_kl", "alpha"): "skew",
    ("taid_interpolated_kl", "lambda"): "share",
    ("lead_layer_alignment", "temperature"): "tau_teacher",
    ("lead_layer_alignment", "layer_temperature"): "tau_layer",
}
"""A record's parameter whose name another option of ours has, or that Python keeps for itself."""
MEANS = {
    "column order": "column",
    "average rank": "average",
    "2^y-1": "exponential",
    "y": "linear",
    "sum_docs_mean_queries": "mean_query",
}
SAYS_NO_MORE = {"pos", "sim", "same_tower", "hard_negatives", "weight", "log", "pos_first", "target"}
SAYS_NO_MORE |= {"columns", "teacher", "error", "weights"}
"""What an adapter below sees to, or what only describes the formula."""
OVER_TAU = {"partial_plackett_luce", "syntriever_stage1", "syntriever_stage1_as_published", "soft_nearest_neighbour"}
"""Whose scale multiplies where our temperature divides."""
ONE_LABEL = {"syntriever_stage1_as_published"}
"""Of whose several positives the first alone is labelled."""


def options_of(record: dict[str, Any]) -> dict[str, Any]:
    name, params = record["name"], record["params"]
    found = dict(KIND[name][1])
    for key, value in params.items():
        if name in OVER_TAU and key == "scale":
            found["tau"] = 1 / value
        elif key not in SAYS_NO_MORE and (name, key) not in {("lambda_loss", "gain"), ("matryoshka_infonce", "dims")}:
            found[CALLED.get((name, key), key)] = MEANS.get(value, value) if isinstance(value, str) else value
    if params.get("pos_first") is not None:
        found["label_first"] = True
    return found


def tensor(values: Any) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def loss_of(record: dict[str, Any]) -> Any:
    if record["name"] in SUMS:
        options = {"relative_similarity": {"margin": record["params"]["margin"]}}
        return parse(SUMS[record["name"]], options, lambda name: open_kind("losses", name))
    return open_kind("losses", KIND[record["name"]][0])(**options_of(record))


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
    if "pairs" in inputs:
        row, first, second, probability = tensor(inputs["pairs"]).T
        made.preferences = Preferences(row.long(), first.long(), second.long(), probability)
    return made, {"student": student}


def on_logits(inputs: dict[str, Any]) -> tuple[Scores, dict[str, torch.Tensor]]:
    """Documents are one query's list."""
    student = tensor(inputs["student"]).requires_grad_()
    pair = Logits(student[None], tensor(inputs["teacher"])[None])
    return Scores(torch.zeros(1, len(student)), logits=pair), {"student": student}


def on_layers(inputs: dict[str, Any], params: dict[str, Any]) -> tuple[Scores, dict[str, torch.Tensor]]:
    student = tensor(inputs["student"]).requires_grad_()
    positive = torch.full((student.shape[1],), params["pos"])
    made = Scores(student[-1].detach(), positive=positive, layers=Layers(student, tensor(inputs["teacher"])))
    return made, {"student": student}


def on_vectors(inputs: dict[str, Any]) -> tuple[Scores, dict[str, torch.Tensor]]:
    student = tensor(inputs["student"]).requires_grad_()
    queue = tensor(inputs["queue"]) if "queue" in inputs else None
    made = Scores(torch.empty(0, 0), vectors=Vectors(student, tensor(inputs["teacher"]), queue))
    return made, {"student": student}


def in_batch(record: dict[str, Any]) -> tuple[Scores, dict[str, torch.Tensor]]:
    """Vectors to a score matrix: columns are positives, then hard negatives, then the other queries."""
    inputs, params = record["inputs"], record["params"]
    leaves = {name: tensor(inputs[name]).requires_grad_() for name in ("q", "p", "p2", "p3", "n") if name in inputs}
    groups = [leaves[name] for name in leaves if name != "q"]
    if params.get("same_tower"):
        groups.append(leaves["q"])
    return laid_out(leaves["q"], groups, record), leaves


def laid_out(queries: torch.Tensor, groups: list[torch.Tensor], record: dict[str, Any]) -> Scores:
    inputs, params, b = record["inputs"], record["params"], len(queries)
    documents = torch.cat(groups)
    if params.get("sim", "cos") == "cos":
        queries, documents = normalize(queries), normalize(documents)
    itself = torch.eye(b, dtype=torch.bool)
    valid = torch.ones(b, len(documents), dtype=torch.bool)
    if params.get("same_tower"):
        valid[:, -b:] = ~itself
    if "keep" in inputs:
        valid = tensor(inputs["keep"]).bool()
        valid[:, :b] |= itself
    label = torch.zeros(b, len(documents), dtype=torch.float64)
    positives = 1 if record["name"] in ONE_LABEL else sum(name in inputs for name in ("p", "p2", "p3"))
    for at in range(positives):
        label[:, at * b : (at + 1) * b] = torch.diag(tensor(inputs.get("label", [1.0] * b)))
    made = Scores(queries @ documents.T, valid=valid, positive=torch.arange(b), label=label)
    made.docs, made.own = documents @ documents.T, itself.repeat(1, len(documents) // b)
    rows = torch.arange(b)
    made.preferences = Preferences(rows, rows, rows + b, torch.ones(b))
    return made


class Prefixes:
    """A student that is read once for each length of its vectors."""

    def __init__(self, record: dict[str, Any], leaves: dict[str, torch.Tensor]) -> None:
        self.record, self.leaves = record, leaves

    def read(self, *_: Any) -> list[Reading]:
        params, (queries, *groups) = self.record["params"], self.leaves.values()
        cut = [laid_out(queries[:, :d], [group[:, :d] for group in groups], self.record) for d in params["dims"]]
        return [Reading(scores.student, weight) for scores, weight in zip(cut, params["weights"], strict=True)]


def value_of(record: dict[str, Any]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    loss, inputs, params = loss_of(record), record["inputs"], record["params"]
    if record["case"] == "E":
        scores, leaves = in_batch(record)
    elif record["case"] == "T":
        scores, leaves = on_vectors(inputs)
    elif record["name"] == "two_logit_mse_inranker":
        scores, leaves = on_logits(inputs)
    elif record["name"] == "lead_layer_alignment":
        scores, leaves = on_layers(inputs, params)
    else:
        scores, leaves = on_lists(inputs, params)
    if record["name"] == "matryoshka_infonce":
        cells = {name: getattr(scores, name) for name in ("valid", "own", "label", "positive")}
        nothing = torch.zeros_like(scores.student, dtype=torch.bool)
        batch = ListBatch([], [], [], columns=nothing, teacher=nothing, scored=nothing, masked=nothing, **cells)
        return step_loss(Prefixes(record, leaves), loss, batch, Budget(1, 1)), leaves
    total, weight = loss(scores)
    value = total / weight
    # ours are natural; the record's gradient carries the factor too
    return value / math.log(2) if params.get("log") == "binary" else value, leaves


@pytest.mark.parametrize("record", RECORDS, ids=[record["id"] for record in RECORDS])
def test_value_and_gradient_are_the_golden_ones(record: dict[str, Any]) -> None:
    value, leaves = value_of(record)
    value.backward()
    golden = record["grad_student"]
    golden = golden if isinstance(golden, dict) else {"student": golden}
    np.testing.assert_allclose(value.item(), record["value"], rtol=1e-9)
    assert set(golden) == set(leaves)
    for name, leaf in leaves.items():
        assert leaf.grad is not None
        np.testing.assert_allclose(leaf.grad.numpy(), golden[name], rtol=0, atol=1e-9)


def test_no_record_of_the_golden_file_is_left_out() -> None:
    assert len(RECORDS) == len({record["id"] for record in RECORDS}) == 123
    held = {record["name"] for record in RECORDS}
    assert len(held) == 49
    assert held == set(KIND) | set(SUMS), "an adapter that no record asks for, or a record without one"
    assert not set(KIND) & set(SUMS)
