"""The trained network as an ONNX file, checked against the torch network it came from."""

import contextlib
import copy
import logging
import warnings
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from torch import nn

from pipeline.networks.dropout import Dropout
from pipeline.networks.mlp import MLP, DigitProbabilities
from pipeline.onnx_session import open_network

TOLERANCE = 1e-4
OPSET, IR = 20, 10  # as torch's exporter writes them


def export_onnx(network: nn.Module, path: Path) -> None:
    """Write the network, with scaling and softmax, as ONNX: (N, 28, 28) float32 in 0..255 -> (N, 10) float32.

    The MLP's graph is written down here and tried on noise; a network that was changed, and answers otherwise, is
    traced by torch's exporter, which takes 1.5 s.

    Args:
        network: takes (N, 784) in 0..1, gives logits (N, 10); is not changed.
        path: the file to write.
    """
    if isinstance(network, MLP) and all(isinstance(layer, nn.Linear | nn.ReLU | Dropout) for layer in network.layers):
        onnx.save(_graph_of(network), path)
        noise = np.random.default_rng(0).integers(0, 256, (64, 28, 28), dtype=np.uint8)
        with contextlib.suppress(RuntimeError):
            check_same(path, network, noise)
            return
    _trace(network, path)


def _graph_of(network: MLP) -> onnx.ModelProto:
    """The operators of `DigitProbabilities` around linear layers and ReLU; dropout is for training only."""
    nodes = [
        helper.make_node("Flatten", ["images"], ["raw"], axis=1),
        helper.make_node("Div", ["raw", "white"], ["pixels"]),
    ]
    constants = {"white": torch.tensor(255.0)}
    values = "pixels"
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
    graph = helper.make_graph(
        nodes,
        "mlp",
        [helper.make_tensor_value_info("images", onnx.TensorProto.FLOAT, ["N", 28, 28])],
        [helper.make_tensor_value_info("probabilities", onnx.TensorProto.FLOAT, ["N", 10])],
        [numpy_helper.from_array(value.detach().cpu().float().numpy(), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, ir_version=IR, opset_imports=[helper.make_opsetid("", OPSET)])


def _as_served(network: nn.Module) -> DigitProbabilities:
    """A copy of the network that answers as it is served: on the CPU, in float32, without dropout."""
    return DigitProbabilities(copy.deepcopy(network)).to("cpu", torch.float32).eval()


def _trace(network: nn.Module, path: Path) -> None:
    served = _as_served(network)
    example = torch.zeros(2, 28, 28)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns of its own internals
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        program = torch.onnx.export(
            served,
            (example,),
            dynamo=True,
            verbose=False,
            input_names=["images"],
            output_names=["probabilities"],
            dynamic_shapes=({0: torch.export.Dim("N")},),
        )
    assert program is not None
    program.save(path)


def predict(path: Path, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Probabilities (N, 10) that the exported network gives for images (N, 28, 28)."""
    session = open_network(path)
    probabilities: NDArray[np.float32] = session.run(None, {"images": images.astype(np.float32)})[0]
    return probabilities


def check_same(path: Path, network: nn.Module, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Make sure that the exported network answers as the torch network does.

    Args:
        path: the ONNX file.
        network: what it was made of; takes (N, 784) in 0..1, gives logits (N, 10).
        images: (N, 28, 28) to try both on.

    Returns:
        The exported network's probabilities (N, 10).

    Raises:
        RuntimeError: if a probability differs by more than 1e-4.
    """
    served = _as_served(network)
    with torch.no_grad():
        expected = served(torch.from_numpy(images.astype(np.float32))).numpy()
    probabilities = predict(path, images)
    difference = float(np.abs(probabilities - expected).max())
    if not difference <= TOLERANCE:
        raise RuntimeError(f"the exported network differs from the trained one by {difference:g} in a probability")
    return probabilities
