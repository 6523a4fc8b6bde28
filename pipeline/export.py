"""The trained network as an ONNX file, checked against the torch network it came from."""

import logging
import warnings
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import nn

from pipeline.network import DigitProbabilities

TOLERANCE = 1e-4


def export_onnx(network: nn.Module, path: Path) -> None:
    """Write the network, with scaling and softmax, as ONNX: (N, 28, 28) float32 in 0..255 -> (N, 10) float32.

    Args:
        network: takes (N, 784) in 0..1, gives logits (N, 10); is not changed.
        path: the file to write.
    """
    served = DigitProbabilities(network).to("cpu", torch.float32).eval()
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
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
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
    served = DigitProbabilities(network).to("cpu", torch.float32).eval()
    with torch.no_grad():
        expected = served(torch.from_numpy(images.astype(np.float32))).numpy()
    probabilities = predict(path, images)
    difference = float(np.abs(probabilities - expected).max())
    if not difference <= TOLERANCE:
        raise RuntimeError(f"the exported network differs from the trained one by {difference:g} in a probability")
    return probabilities
