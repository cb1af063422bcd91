"""A student as an ONNX graph, and the same graph in fewer bytes.

int8 is dynamic: weights are kept in int8 with a scale for each output channel, activations are rounded when they come,
by one scale for a whole batch. A few channels with large values then leave the others few steps; :func:`smoothed`
moves what is large in them into the weights, by what a sample of texts shows (Xiao et al. 2023, SmoothQuant,
arXiv:2211.10438). Weights use seven of eight bits: without VNNI a processor adds two products in 16 bits, and eight
overflow.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from rerankdistill.errors import MissingDependency, UsageError

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

Form = Literal["onnx", "onnx-int8", "onnx-fp16", "openvino"]
FORMS: tuple[Form, ...] = ("onnx", "onnx-int8", "onnx-fp16", "openvino")
INSTALL = "pip install 'rerankdistill[export]'"
INSTALL_OPENVINO = "pip install 'rerankdistill[openvino]'"
GRAPH = {"openvino": "model.xml"}
"""What the graph's file is called, where not ``model.onnx``."""
OUT = "out"
ALPHA = 0.5
"""How much of what is large in the activations goes into the weights: 0 nothing, 1 all."""

Features = dict[str, Any]
"""What a network reads: tensors ``[b, length]`` by the names of its inputs."""


class Graph(NamedTuple):
    """A network that is to be written: ``module(*inputs) -> [b, …]``, the names of its inputs, and some batches."""

    module: Any
    inputs: tuple[str, ...]
    batches: Sequence[Features]


def graph_file(form: Form) -> str:
    return GRAPH.get(form, "model.onnx")


def vectors_module(network: Any) -> Module:
    """A bi-encoder's network as a module of its inputs' tensors: ``[b, d]``, of length one where it is compared so."""
    cosine = network.similarity_fn_name == "cosine"

    def forward(network: Any, features: Features) -> Tensor:
        vectors: Tensor = network(features)["sentence_embedding"]
        return vectors / vectors.norm(dim=-1, keepdim=True).clamp_min(1e-12) if cosine else vectors

    return _by_position(network, forward)


def scores_module(network: Any) -> Module:
    """A cross-encoder's network as a module of its inputs' tensors: ``[b]`` logits."""

    def forward(network: Any, features: Features) -> Tensor:
        logits: Tensor = network.model(**features).logits
        return logits[:, 0]

    return _by_position(network, forward)


def _by_position(network: Any, forward: Callable[[Any, Features], Tensor]) -> Module:
    import torch

    class Positional(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network
            self.names: tuple[str, ...] = ()

        def forward(self, *tensors: Tensor) -> Tensor:
            return forward(self.network, dict(zip(self.names, tensors, strict=True)))

    return Positional().eval()


def write_onnx(graph: Graph, path: Path) -> None:
    """Trace a network into one file, for batches and lengths of any size.

    Raises:
        MissingDependency: the extra ``export`` is not installed.
        UsageError: torch cannot trace this network.
    """
    import torch

    module, example = graph.module, [graph.batches[0][name] for name in graph.inputs]
    module.names = graph.inputs
    sizes = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    with _library():
        import onnxscript  # noqa: F401  what is missing is said before anything is traced

        try:
            traced = torch.export.export(
                module, tuple(example), dynamic_shapes=((sizes,) * len(example),), strict=False
            )
            found = torch.onnx.export(
                traced, tuple(example), dynamo=True, input_names=graph.inputs, output_names=[OUT], verbose=False
            )
        except Exception as error:  # the exporter's errors share no base
            first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise UsageError(f"torch cannot trace this student: {first}", fix="serve it as it is") from error
    if found is None:
        raise UsageError("torch cannot trace this student", fix="serve it as it is")
    found.save(str(path), external_data=False)


def write_fp16(source: Path, path: Path) -> None:
    """The same graph in half precision; what comes in and goes out stays as it is."""
    with _library():
        import onnx
        from onnxruntime.transformers import float16

        onnx.save(float16.convert_float_to_float16(onnx.load(str(source)), keep_io_types=True), str(path))


def write_int8(source: Path, path: Path, float_layers: Sequence[int] = ()) -> None:
    """The same graph with its weight matrices in int8; those numbered ``float_layers`` (:func:`weighted_layers`) stay
    as they are. A layer whose output nobody reads, such as BERT's pooler at the end, is in no graph."""
    with _library():
        import onnx
        from onnxruntime import quantization

        names = weighted_layers(onnx.load(str(source)))
        quantization.quantize_dynamic(
            str(source),
            str(path),
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            reduce_range=True,
            weight_type=quantization.QuantType.QInt8,
            nodes_to_exclude=[names[number] for number in float_layers if number < len(names)],
        )


def write_openvino(source: Path, path: Path) -> None:
    """The same graph as OpenVINO's own files."""
    with _library():
        import openvino

        openvino.save_model(openvino.Core().read_model(str(source)), str(path), compress_to_fp16=False)


def weighted_layers(model: Any) -> list[str]:
    """The nodes of a graph that multiply by a matrix of weights, in the order in which they are reached."""
    weights = {each.name for each in model.graph.initializer}
    return [node.name for node in model.graph.node if node.op_type in ("MatMul", "Gemm") and node.input[1] in weights]


class Smoothing(NamedTuple):
    """A network with smoothed layers, and by how much each layer's output is off once it is rounded, in the order in
    which the layers are reached (relative to the output's length)."""

    module: Module
    errors: list[float]


def smoothed(graph: Graph, alpha: float = ALPHA) -> Smoothing:
    """A copy whose linear layers read activations divided by a factor for each channel, and hold weights multiplied by
    it: ``max|x|^a / max|w|^(1-a)``, by the largest values that the batches show. It computes the same."""
    import torch

    module = deepcopy(graph.module)
    module.names = graph.inputs
    seen: dict[str, Tensor] = {}

    def watch(name: str) -> Any:
        def hook(_: Module, inputs: tuple[Tensor, ...]) -> None:
            largest = inputs[0].detach().flatten(0, -2).abs().amax(0)
            seen[name] = torch.maximum(seen[name], largest) if name in seen else largest

        return hook

    linear = {name: layer for name, layer in module.named_modules() if isinstance(layer, torch.nn.Linear)}
    hooks = [layer.register_forward_pre_hook(watch(name)) for name, layer in linear.items()]
    with torch.inference_mode():
        for batch in graph.batches:
            module(*(batch[name] for name in graph.inputs))
    for hook in hooks:
        hook.remove()
    errors = []
    for name, largest in seen.items():  # in the order of the first batch
        layer, largest = linear[name], largest.clone()
        factor = (largest.clamp_min(1e-5) ** alpha / layer.weight.abs().amax(0).clamp_min(1e-5) ** (1 - alpha)).detach()
        errors.append(_rounding_error(layer.weight.detach() * factor, largest / factor))
        parent, _, own = name.rpartition(".")
        setattr(module.get_submodule(parent), own, _scaled(layer, factor))
    return Smoothing(module, errors)


def _scaled(layer: Any, factor: Tensor) -> Module:
    import torch

    class Scaled(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer
            self.inverse: Tensor
            self.register_buffer("inverse", 1 / factor)

        @property
        def weight(self) -> Any:
            """What a library looks at of a layer (its dtype)."""
            return self.layer.weight

        def forward(self, inputs: Tensor) -> Tensor:
            found: Tensor = self.layer(inputs * self.inverse)
            return found

    layer.weight.data.mul_(factor)
    return Scaled()


def _rounding_error(weight: Tensor, largest: Tensor) -> float:
    """How much rounding activations costs a layer: a step of the common scale against what its channels reach."""
    step = float(largest.amax()) / 127
    noise = step * float(weight.norm()) / 12**0.5
    signal = float((weight * largest / 3).norm())
    return noise / max(signal, 1e-12)


@contextmanager
def _library() -> Iterator[None]:
    """What an exporter notes on its way is its authors' own; what is not installed is said with how to get it."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "")]  # onnxruntime speaks through the root
    levels = [each.level for each in loggers]
    for each in loggers:
        each.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except ModuleNotFoundError as error:
        package = (error.name or "").split(".")[0]
        fix = INSTALL_OPENVINO if package == "openvino" else INSTALL
        raise MissingDependency(f"export needs the package {package!r}, which is not installed", fix=fix) from error
    finally:
        for each, level in zip(loggers, levels, strict=True):
            each.setLevel(level)
