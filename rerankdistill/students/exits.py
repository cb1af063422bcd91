"""Early exits: what a bi-encoder has made of a text after some of its layers is what a smaller one makes of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rerankdistill.errors import CardError
from rerankdistill.students.layer_scores import pooled_layers
from rerankdistill.students.layers import lowest

EXITS = "exits"
"""In a student's folder: each of its exits as a folder of its own, named by the number of its layers."""
TEXT = "what a part of the model says, the model said on its way"


def check_exits(model: Any, depths: Sequence[int]) -> None:
    """Raises CardError where a ``SentenceTransformer`` cut at a depth says other things than it says there on its way:
    an architecture that does more after its layers than is known here."""
    import torch

    body = model[0].model
    features = {name: value.to(model.device) for name, value in model[0].tokenizer([TEXT], return_tensors="pt").items()}
    model.eval()
    with torch.inference_mode():
        layers = pooled_layers(model, features)[0]
        for depth in depths:
            with lowest(body, depth):
                own = model(dict(features))["sentence_embedding"][0]
            if not torch.allclose(own, layers[depth - 1], rtol=1e-3, atol=1e-3 * float(own.abs().max())):
                what = f"a {type(body).__name__} that is cut says something else than its layers do"
                raise CardError(what, where="students: exits", fix="leave exits out")
