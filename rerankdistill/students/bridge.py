"""A linear map from a query encoder's vectors to those of the documents that it searches, so that a small encoder can
stand before documents that a larger one has read. It is the last module of the query encoder, saved with it.

It begins as the map that takes what the query encoder makes of some documents nearest to their vectors (ridge
regression, in closed form); training goes on from there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import Tensor

Start = Literal["least_squares", "orthogonal"]
"""How the map begins: fitted to some documents, or turning vectors without stretching them."""
DOCUMENTS = 1000
"""That a map is fitted to."""
RIDGE = 1e-2
"""Of the mean variance of a dimension."""


def add_bridge(model: Any, width: int) -> None:
    """Put a map to ``width`` dimensions behind a ``SentenceTransformer``, in place; it turns and does not stretch."""
    import torch
    from sentence_transformers.base.modules import Dense

    dense = Dense(int(model.get_embedding_dimension()), width, activation_function=torch.nn.Identity())
    torch.nn.init.orthogonal_(dense.linear.weight)
    torch.nn.init.zeros_(dense.linear.bias)
    model.add_module(str(len(model)), dense)


def before_bridge(model: Any) -> Any:
    """The model without its last module; its vectors are compared as they are."""
    from sentence_transformers import SentenceTransformer

    about = {"device": str(model.device), "prompts": dict(model.prompts), "similarity_fn_name": "dot"}
    return SentenceTransformer(modules=list(model.children())[:-1], **about)


def fit_bridge(model: Any, before: Tensor, wanted: Tensor) -> None:
    """Fit the last module of a model, in place, to take ``before [n, d]`` to ``wanted [n, d']``."""
    import torch

    x, y = before.double(), wanted.double()
    middle, goal = x.mean(0), y.mean(0)
    x, y = x - middle, y - goal
    gram = x.T @ x
    ridge = (RIDGE * gram.diagonal().mean()).clamp_min(1e-9) * torch.eye(gram.shape[0], dtype=gram.dtype)
    weight = torch.linalg.solve(gram + ridge, x.T @ y)
    linear = list(model.children())[-1].linear
    with torch.no_grad():
        linear.weight.copy_(weight.T)
        linear.bias.copy_(goal - middle @ weight)
