"""A network compiled for its training (``torch.compile``), with the lengths of texts left open."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any


@contextmanager
def compiled(network: Any) -> Iterator[None]:
    """Compile the transformers models of a network while the block runs; outside of training they run as they were."""
    from transformers import PreTrainedModel

    bodies = [module for module in network.modules() if isinstance(module, PreTrainedModel)]
    inner = {id(below) for body in bodies for below in body.modules() if below is not body}
    with ExitStack() as stack:
        for body in bodies:
            if id(body) not in inner:
                stack.enter_context(_compiled(body))
        yield


@contextmanager
def _compiled(body: Any) -> Iterator[None]:
    import torch

    plain = body.forward
    quick = torch.compile(plain, dynamic=True)

    def forward(*inputs: Any, **named: Any) -> Any:
        return (quick if body.training else plain)(*inputs, **named)

    body.forward = forward
    try:
        yield
    finally:
        del body.forward
