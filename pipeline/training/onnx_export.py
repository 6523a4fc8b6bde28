"""The trained network as an ONNX file, checked against the torch network it came from."""

import contextlib
import copy
import logging
import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.overrides import TorchFunctionMode

from pipeline.data_spec import METADATA, WHITE, DataSpec
from pipeline.networks.dropout import Dropout
from pipeline.networks.mlp import MLP
from pipeline.onnx_session import open_network

TOLERANCE = 1e-4
OPSET, IR = 20, 10  # as torch's exporter writes them
NUMBERS_AT_ONCE = 8_000_000  # in one pass, those of 10,000 images of MNIST


class Probabilities(nn.Module):
    """What is served: raw examples in, probabilities out; scaling is the model's own job.

    Shapes: (B, *spec.sent_shape) float32, pixels in 0..255 or a table's rows -> (B, classes), rows summing to 1.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, network: nn.Module, spec: DataSpec) -> None:
        """Wrap a network that takes scaled examples (B, *spec.shape) and gives logits."""
        super().__init__()
        self.network, self.kind, self.colour = network, spec.kind, len(spec.sent_shape) == 3
        self.register_buffer("mean", torch.tensor(spec.mean))
        self.register_buffer("deviation", torch.tensor(spec.deviation))

    def forward(self, raw: Tensor) -> Tensor:
        """(B, *spec.sent_shape) -> (B, classes)."""
        if self.kind == "table":
            scaled = (raw - self.mean) / self.deviation
        else:
            # As in training also in memory: `view` takes no channels that lie last.
            scaled = (raw.permute(0, 3, 1, 2).contiguous() if self.colour else raw.unsqueeze(1)) / WHITE
        logits: Tensor = self.network(scaled)
        return logits.softmax(dim=1)


def export_onnx(
    network: nn.Module, spec: DataSpec, path: Path, examples: NDArray[Any] | None = None
) -> NDArray[np.float32]:
    """Write the network, with scaling and softmax, as ONNX: (N, *spec.sent_shape) float32, raw -> (N, classes) float32.

    The MLP's graph is written down here and tried on the examples, which takes 0.02 s; any other network, or one that
    was changed and answers otherwise, is traced by torch's exporter, which takes 1.5 s or more.

    Args:
        network: takes (N, *spec.shape), scaled, and gives logits (N, classes); is not changed.
        spec: of the data; the file carries it.
        path: the file to write: a new one, as what lies there may be MLflow's as well (`registry.packing.share`).
        examples: (N, *spec.sent_shape), raw, to try it on; None: 64 of noise.

    Returns:
        The exported network's probabilities (N, classes) for the examples.

    Raises:
        RuntimeError: if it does not answer as the torch network does.
    """
    path.unlink(missing_ok=True)
    tried_on = noise(spec, 64) if examples is None else examples
    if isinstance(network, MLP) and all(isinstance(layer, nn.Linear | nn.ReLU | Dropout) for layer in network.layers):
        _save(_graph_of(network, spec), spec, path)
        with contextlib.suppress(RuntimeError):
            return check_same(path, network, spec, tried_on)
    _trace(network, spec, path)
    return check_same(path, network, spec, tried_on)


def noise(spec: DataSpec, examples: int) -> NDArray[np.float32]:
    """Made-up raw examples (N, *spec.sent_shape)."""
    draw = np.random.default_rng(0)
    if spec.kind == "table":
        return (draw.normal(size=(examples, spec.size)) * spec.deviation + spec.mean).astype(np.float32)
    return draw.integers(0, 256, (examples, *spec.sent_shape)).astype(np.float32)


def _save(model: onnx.ModelProto, spec: DataSpec, path: Path) -> None:
    helper.set_model_props(model, {METADATA: spec.as_json()})
    onnx.save(model, path)


def _graph_of(network: MLP, spec: DataSpec) -> onnx.ModelProto:
    """The operators of `Probabilities` around linear layers and ReLU; dropout is for training only."""
    if spec.kind == "table":
        nodes = [
            helper.make_node("Sub", ["examples", "mean"], ["centred"]),
            helper.make_node("Div", ["centred", "deviation"], ["scaled"]),
        ]
        constants = {"mean": torch.tensor(spec.mean), "deviation": torch.tensor(spec.deviation)}
    else:
        source, nodes = "examples", []
        if len(spec.sent_shape) == 3:
            nodes, source = [helper.make_node("Transpose", ["examples"], ["planes"], perm=[0, 3, 1, 2])], "planes"
        nodes += [
            helper.make_node("Flatten", [source], ["raw"], axis=1),
            helper.make_node("Div", ["raw", "white"], ["scaled"]),
        ]
        constants = {"white": torch.tensor(WHITE)}
    values = "scaled"
    for index, layer in enumerate(network.layers):
        result = f"layers.{index}"
        if isinstance(layer, nn.Linear):
            constants |= {f"{result}.weight": layer.weight, f"{result}.bias": layer.bias}
            nodes.append(helper.make_node("Gemm", [values, f"{result}.weight", f"{result}.bias"], [result], transB=1))
            values = result
        elif isinstance(layer, nn.ReLU):
            nodes.append(helper.make_node("Relu", [values], [result]))
            values = result
    nodes.append(helper.make_node("Softmax", [values], ["probabilities"], axis=1))
    number = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "mlp",
        [helper.make_tensor_value_info("examples", number, ["N", *spec.sent_shape])],
        [helper.make_tensor_value_info("probabilities", number, ["N", len(spec.classes)])],
        [numpy_helper.from_array(value.detach().cpu().float().numpy(), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, ir_version=IR, opset_imports=[helper.make_opsetid("", OPSET)])


class _Constant(nn.Module):
    """In the place of a parametrization: the value that it has now."""

    value: Tensor

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.register_buffer("value", value.detach().clone())

    def forward(self) -> Tensor:
        return self.value


class _Detached(TorchFunctionMode):
    """Copies also what is no leaf of autograd's graph: features that a network keeps, the weight of a weight norm."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.__deepcopy__ and not args[0].is_leaf:
            return args[0].detach().clone()
        return func(*args, **(kwargs or {}))


def _as_served(network: nn.Module, spec: DataSpec) -> Probabilities:
    """A copy of the network that answers as it is served: on the CPU, in float32, without dropout."""
    with _Detached():
        served = Probabilities(copy.deepcopy(network), spec).to("cpu", torch.float32).eval()
    for module in list(served.modules()):
        if parametrize.is_parametrized(module):  # ONNX lacks what makes some of them, and they do not change any more
            parametrizations = module.parametrizations
            assert isinstance(parametrizations, nn.ModuleDict)
            for name in list(parametrizations):  # `remove_parametrizations` would change the original's class, too
                parametrizations[name] = _Constant(getattr(module, name))
    return served


def _trace(network: nn.Module, spec: DataSpec, path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns of its own internals
        for name in ("torch.onnx", "onnxscript", "onnx_ir"):
            logging.getLogger(name).setLevel(logging.ERROR)
        program = torch.onnx.export(
            _as_served(network, spec),
            (torch.from_numpy(noise(spec, 2)),),
            dynamo=True,
            verbose=False,
            input_names=["examples"],
            output_names=["probabilities"],
            dynamic_shapes=({0: torch.export.Dim("N")},),
        )
    assert program is not None
    program.save(path)
    _save(onnx.load(path), spec, path)


def _in_parts(examples: NDArray[Any]) -> Iterator[NDArray[np.float32]]:
    at_once = max(1, NUMBERS_AT_ONCE // math.prod(examples.shape[1:]))
    for first in range(0, max(1, len(examples)), at_once):
        yield examples[first : first + at_once].astype(np.float32)


def predict(path: Path, examples: NDArray[Any]) -> NDArray[np.float32]:
    """Probabilities (N, classes) that the exported network gives for raw examples (N, ...)."""
    session = open_network(path)
    name = session.get_inputs()[0].name
    return np.concatenate([session.run(None, {name: part})[0] for part in _in_parts(examples)])


def check_same(path: Path, network: nn.Module, spec: DataSpec, examples: NDArray[Any]) -> NDArray[np.float32]:
    """Make sure that the exported network answers as the torch network does.

    Args:
        path: the ONNX file.
        network: what it was made of.
        spec: of the data.
        examples: (N, *spec.sent_shape), raw, to try both on.

    Returns:
        The exported network's probabilities (N, classes).

    Raises:
        RuntimeError: if a probability differs by more than 1e-4.
    """
    served, probabilities = _as_served(network, spec), predict(path, examples)
    with torch.no_grad():
        expected = np.concatenate([served(torch.from_numpy(part)).numpy() for part in _in_parts(examples)])
    difference = float(np.abs(probabilities - expected).max())
    if not difference <= TOLERANCE:
        raise RuntimeError(f"the exported network differs from the trained one by {difference:g} in a probability")
    return probabilities
