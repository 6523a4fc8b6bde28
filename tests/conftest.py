"""What the tests share: a clean environment, small data, the real MNIST where it lies, one finished run."""

import gzip
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
SHARED_MNIST = ROOT.parent / "shared/data/mnist"
MNIST_DIR = Path(os.environ["MNIST_DIR"]).absolute() if "MNIST_DIR" in os.environ else SHARED_MNIST
FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
DELIVERED_WITHIN_S = 120


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch, tmp_path):
    """No variable of the caller's decides a test, and nothing is written into the project."""
    for name in list(os.environ):
        if name.startswith("MLFLOW_") or name == "MNIST_DIR":
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def mnist_dir():
    """The folder of the real MNIST files."""
    if not (MNIST_DIR / "train-images-idx3-ubyte.gz").exists():
        pytest.skip(f"no MNIST in {MNIST_DIR} (set MNIST_DIR to test on the real data)")
    return MNIST_DIR


def idx_bytes(array):
    """An IDX file's content for an array of unsigned bytes."""
    array = np.asarray(array, dtype=np.uint8)
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


def write_four_files(folder, train=20, test=10, compress=True):
    """Write a small dataset in MNIST's format; returns its arrays by file name."""
    random = np.random.RandomState(0)
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {}
    for name, size in zip(FILES, (train, train, test, test), strict=True):
        shape = (size, 28, 28) if "images" in name else (size,)
        arrays[name] = random.randint(0, 256 if "images" in name else 10, shape).astype(np.uint8)
        content = idx_bytes(arrays[name])
        (folder / (name + ".gz" * compress)).write_bytes(gzip.compress(content) if compress else content)
    return arrays


def environment(**changes):
    """The environment of a child process: this package importable, no MLflow variable but those given."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_") and name != "MNIST_DIR"}
    path = f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}"
    return {**kept, "PATH": path, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **changes}


def run_pipeline(*arguments, cwd, timeout=DELIVERED_WITHIN_S, **variables):
    """Run `python -m pipeline` to its end in a folder of its own."""
    command = [sys.executable, "-m", "pipeline", *map(str, arguments)]
    return subprocess.run(
        command, cwd=cwd, env=environment(**variables), capture_output=True, text=True, timeout=timeout
    )


@pytest.fixture(scope="session")
def project_run(tmp_path_factory):
    """`mlflow run <project>` from another folder, two epochs on the digits; returns (folder, completed process)."""
    folder = tmp_path_factory.mktemp("elsewhere")
    runs = folder / "runs"
    command = ["mlflow", "run", str(ROOT), "--env-manager", "local", "--experiment-name", "mnist-mlp"]
    knobs = {"epochs": 2, "dataset": "digits", "learning_rate": "1e-3", "model_name": "mnist-mlp", "runs_dir": runs}
    for name, value in knobs.items():
        command += ["-P", f"{name}={value}"]
    done = subprocess.run(
        command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=DELIVERED_WITHIN_S
    )
    assert done.returncode == 0, done.stderr
    return folder, done
