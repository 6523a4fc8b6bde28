"""Versions of models that take something else than MNIST's images, with random weights and without a registry."""

import mlflow
import numpy as np
import torch

from pipeline.data_spec import DataSpec
from pipeline.mlflow_client.connection import connect
from pipeline.networks.mlp import MLP
from pipeline.onnx_session import open_network
from pipeline.registry import log_model
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
    """A version as the watcher has it."""
    session = open_network(export(spec, folder / f"{name}-{version}.onnx", int(version)), threads=1)
    return Loaded(name, version, f"run{version}", session, session.get_inputs()[0].name, spec)


def register(uri, name, specs, folder):
    """A version of the model for each spec, the first of them the champion; returns the registry's client."""
    before = mlflow.get_tracking_uri()
    try:
        client = connect(uri)
        experiment = client.create_experiment(name, artifact_location=str(folder / "artifacts"))
        for seed, spec in enumerate(specs, 1):
            network = export(spec, folder / f"{name}-{seed}.onnx", seed)
            np.save(folder / "example.npy", np.zeros((2, *spec.sent_shape), np.uint8))
            run_id = client.create_run(experiment).info.run_id
            model_id = log_model.log_model(client, run_id, network, folder / "example.npy", spec)
            log_model.register(client, name, run_id, model_id, {})
    finally:
        mlflow.set_tracking_uri(before)
    return client
