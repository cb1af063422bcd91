"""Matrix products with weights that are laid out for the processor once, when a model is opened.

Otherwise a weight is laid out anew in every product, which for a few rows takes as long as the product itself. oneDNN,
which torch brings, takes it ready, and applies GELU or adds another matrix while the result is still in the cache. It
compiles a program for every shape and keeps some thousand of them: :func:`rounded` makes few numbers of rows of many.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


def rounded(rows: int) -> int:
    """The next of 4, 8, 12, … 256, and of 32 numbers an octave from there on."""
    step = max(4, 1 << max(0, rows.bit_length() - 6))
    return -(-rows // step) * step


class Linear:
    """``[n, k]`` to ``[n, m]``, through GELU where ``gelu``.

    Args:
        weights: ``[m, k]``, more than one of them below each other; biases like them.
    """

    def __init__(self, weights: list[Tensor], biases: list[Tensor], dtype: Any, gelu: bool = False) -> None:
        import torch

        weight = torch.cat([each.detach() for each in weights]).to(dtype).contiguous()
        self._bias = torch.cat([each.detach() for each in biases]).to(dtype).contiguous()
        self._gelu, laid = gelu, ready(weight)
        self._fast, self._weight = laid is not None, weight if laid is None else laid

    def __call__(self, rows: Tensor) -> Tensor:
        import torch

        if self._fast:
            after = "gelu" if self._gelu else "none"
            made: Tensor = torch.ops.mkldnn._linear_pointwise(rows, self._weight, self._bias, after, [], "none")
            return made
        made = torch.nn.functional.linear(rows, self._weight, self._bias)
        return torch.nn.functional.gelu(made) if self._gelu else made

    def plus(self, rows: Tensor, other: Tensor) -> Tensor:
        """The product and ``other`` together; without GELU."""
        import torch

        if self._fast:
            made: Tensor = torch.ops.mkldnn._linear_pointwise.binary(rows, other, self._weight, self._bias, "add")
            return made
        return torch.addmm(other + self._bias, rows, self._weight.t())


def ready(weight: Tensor) -> Tensor | None:
    """A weight ``[m, k]`` as oneDNN wants it; None where this torch, or this processor, cannot do that."""
    import torch

    try:
        laid: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, None)
        rows = torch.zeros(1, weight.shape[1], dtype=weight.dtype)
        torch.ops.mkldnn._linear_pointwise(rows, laid, None, "none", [], "")
    except (AttributeError, NotImplementedError, RuntimeError):
        return None
    return laid
