"""Versions of models that take something else than MNIST's images, with random weights and without a registry."""

import torch

from pipeline.data_spec import DataSpec
from pipeline.networks.mlp import MLP
from pipeline.onnx_session import open_network
from pipeline.registry.versions import Loaded
from pipeline.training.onnx_export import export_onnx

PHOTOS = DataSpec("image", (3, 6, 9), ("cat", "cow", "dog"))
SCANS = DataSpec("image", (1, 7, 5), tuple(f"page {number}" for number in range(25)))
FLOWERS = DataSpec(
    "table", (3,), ("setosa", "virginica"), ("petal length (cm)", "class", "x"), (1.0, -2.0, 30.0), (0.5, 1.0, 9.0)
)


def export(spec, path, seed=0):
    """An MLP of that spec as an ONNX file."""
    torch.manual_seed(seed)
    export_onnx(MLP(spec, 8, 1), spec, path)
    return path


def loaded_of(spec, folder, version="1", name="pets"):
    """A version as the follower has it."""
    session = open_network(export(spec, folder / f"{name}-{version}.onnx", int(version)), threads=1)
    return Loaded(name, version, f"run{version}", session, session.get_inputs()[0].name, spec)
