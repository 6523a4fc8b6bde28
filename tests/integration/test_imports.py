"""Big libraries are imported without what they load in vain, and nothing is lost by it."""

import subprocess
import sys

import importlib_metadata
import mlflow
import numpy as np
import torch
from mlflow.utils import requirements_utils

from pipeline.data_spec import MNIST
from pipeline.mlflow_client.connection import connect
from pipeline.networks.mlp import MLP
from pipeline.registry import log_model
from pipeline.training import onnx_export
from tests.conftest import environment, ready_store

TRAINING = """
import sys
from pipeline.imports import gc_paused
with gc_paused():
    import pipeline.training.fit
print("scipy.signal" in sys.modules, "pytorch_lightning" in sys.modules)
import scipy.signal
print(scipy.signal.convolve([1, 2], [1, 3]).tolist())
"""


def printed_by(code):
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_lightning_comes_without_signal_processing_which_is_the_real_one_for_whoever_asks_later():
    assert printed_by(TRAINING) == ["False True", "[1, 5, 6]"]


def test_signal_processing_that_is_there_already_stays():
    code = f"import scipy.signal as before\n{TRAINING}\nprint(scipy.signal is before)"
    assert printed_by(code) == ["True True", "[1, 5, 6]", "True"]


def test_a_model_is_logged_without_reading_the_file_lists_of_all_packages(tmp_path, monkeypatch):
    def read():
        raise AssertionError("every installed package is looked through")

    monkeypatch.setattr(importlib_metadata, "packages_distributions", read)
    monkeypatch.setattr(requirements_utils, "_MODULES_TO_PACKAGES", None)
    example = tmp_path / "example.npy"
    np.save(example, np.zeros((2, 28, 28), np.uint8))
    torch.manual_seed(0)
    onnx_export.export_onnx(MLP(MNIST, 8), MNIST, tmp_path / "network.onnx")
    before = mlflow.get_tracking_uri()
    try:
        client = connect(ready_store(tmp_path))
        experiment_id = client.create_experiment("one", artifact_location=str(tmp_path / "artifacts"))
        run_id = client.create_run(experiment_id).info.run_id
        model_id = log_model.log_model(client, run_id, tmp_path / "network.onnx", example)
        answer = mlflow.pyfunc.load_model(f"models:/{model_id}").predict(np.load(example).astype(np.float32))
    finally:
        mlflow.set_tracking_uri(before)
    assert np.asarray(answer).shape == (2, 10)
