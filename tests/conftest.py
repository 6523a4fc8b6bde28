"""What the tests share: a clean environment, small data, the real MNIST where it lies, one finished run."""

import contextlib
import functools
import gc
import gzip
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from random import SystemRandom

import numpy as np
import pytest
from hypothesis import settings

os.environ["OMP_NUM_THREADS"] = "1"  # the tests' own processes share two cores; before torch is imported

ROOT = Path(__file__).parent.parent
SHARED_MNIST = ROOT.parent / "shared/data/mnist"
MNIST_DIR = Path(os.environ["MNIST_DIR"]).absolute() if "MNIST_DIR" in os.environ else SHARED_MNIST
FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
DELIVERED_WITHIN_S = 300  # no promise but a patience, as all here: on a machine ten times slower, or frozen for a while
# The same examples on every machine, however slow it is, and none remembered on the disk.
settings.register_profile("project", derandomize=True, deadline=None, database=None)
settings.load_profile("project")
# Two processes take the files in turn: the long ones first, so that none is left alone with one at the end.
SLOW_FIRST = (
    "test_on_ray",
    "test_any_script",
    "test_examples",
    "test_tracker_faults",
    "test_killed_runs",
    "test_faults",
    "test_experiments",
    "test_mlproject",
    "test_model_server",
    "test_serving",
    "test_delivery",
    "test_mnist",
    "test_promotion",
    "test_page",
    "test_two_nodes",
    "test_divergence",
    "test_old_runs",
    "test_experiment_ends",
    "test_imports",
    "test_cli",
)
IN_MEMORY, ENOUGH = Path("/dev/shm"), 2 << 30
if IN_MEMORY.is_dir() and os.access(IN_MEMORY, os.W_OK) and shutil.disk_usage(IN_MEMORY).free > ENOUGH:
    # Journals and databases wait for the disk at each step, 4 ms; a whole run of the tests leaves 0.1 GB.
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(IN_MEMORY))
# As a shell's `&` and nohup hand it on, to the tests' own processes too.
for each, as_ever in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(each) is signal.SIG_IGN:
        signal.signal(each, as_ever)
gc.disable()  # until all is imported: nothing of it is garbage


def pytest_ignore_collect(collection_path, config):
    """`-m slow` imports the few files that have a slow test, and not 150: half a minute a process."""
    if config.option.markexpr == "slow" and collection_path.suffix == ".py":
        return "mark.slow" not in collection_path.read_text() or None
    return None


def pytest_collection_modifyitems(items):
    """Bring the long files to the front."""
    place = {name: index for index, name in enumerate(SLOW_FIRST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(place)))


def pytest_collection_finish():
    """Leave what was imported out of every later search for garbage: statsmodels alone asks for one at each call."""
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch, tmp_path):
    """No variable of the caller's decides a test, and nothing is written into the project."""
    for name in list(os.environ):
        if name.startswith(("MLFLOW_", "PIPELINE_")) or name == "MNIST_DIR":
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def mnist_dir():
    """The folder of the real MNIST files."""
    if not (MNIST_DIR / "train-images-idx3-ubyte.gz").exists():
        pytest.skip(f"no MNIST in {MNIST_DIR} (set MNIST_DIR to test on the real data)")
    return MNIST_DIR


@pytest.fixture(scope="session")
def sign_digits():
    """The folder of real photographs, hands that show digits, a sub-folder a class."""
    folder = SHARED_MNIST.parent / "sign_language_digits"
    if not folder.is_dir():
        pytest.skip(f"no photographs in {folder}")
    return folder


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
    """The environment of a child process: this package importable, no MLflow variable but those given.

    Where the caller has forbidden Python to write what it compiles, each child would compile all of us again.
    """
    ours = ("MLFLOW_", "PIPELINE_", "MNIST_DIR", "PYTHONDONTWRITEBYTECODE")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    path = f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}"
    return {**kept, "PATH": path, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **changes}


def run_pipeline(*arguments, cwd, timeout=DELIVERED_WITHIN_S, **variables):
    """Run `python -m pipeline` to its end in a folder of its own."""
    command = [sys.executable, "-m", "pipeline", *map(str, arguments)]
    return subprocess.run(
        command, cwd=cwd, env=environment(**variables), capture_output=True, text=True, timeout=timeout
    )


def free_port():
    """A port of loopback that nobody has, nor gets while a server starts: connections and port 0 get those above.

    Drawn by the system, as the tests' two processes begin each test with the same state of `random`.
    """
    while True:
        port = SystemRandom().randrange(15_000, 30_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


STORE_MAKING = threading.Lock()


@functools.cache
def empty_store():
    """The content of a database that MLflow has just made: it takes two seconds of migrations, so it is made once."""
    import mlflow

    from pipeline.mlflow_client.connection import connect

    before = mlflow.get_tracking_uri()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mlflow.db"
        try:
            connect(f"sqlite:///{path}")
        finally:
            mlflow.set_tracking_uri(before)
        with contextlib.closing(sqlite3.connect(path)) as database:
            return database.serialize()


def ready_store(folder, name="mlflow.db"):
    """Put an empty store where the commands and uploaders of a folder look for one; returns its URI."""
    path = Path(folder) / name
    with STORE_MAKING:  # MLflow has one store at a time, and the soak asks from several threads
        path.write_bytes(empty_store())
    return f"sqlite:///{path}"


@pytest.fixture
def own_store(tmp_path):
    """The test's folder has its store, empty; what proves that one is made where there is none does without."""
    return ready_store(tmp_path)


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


@pytest.fixture(scope="session")
def model_store(tmp_path_factory):
    """A store with the model `mnist-mlp` in two versions of random weights, 1 the champion; returns its URI.

    Every test that moves an alias puts it back.
    """
    import mlflow
    import torch

    from pipeline.data_spec import MNIST
    from pipeline.mlflow_client.connection import connect
    from pipeline.networks.mlp import MLP
    from pipeline.registry import log_model
    from pipeline.training.onnx_export import export_onnx

    folder = tmp_path_factory.mktemp("store")
    uri = ready_store(folder)
    before = mlflow.get_tracking_uri()
    try:
        client = connect(uri)
        experiment = client.create_experiment("models", artifact_location=str(folder / "artifacts"))
        np.save(folder / "example.npy", np.zeros((2, 28, 28), np.uint8))
        for seed in (1, 2):
            torch.manual_seed(seed)
            export_onnx(MLP(MNIST, 16), MNIST, folder / f"{seed}.onnx")
            run_id = client.create_run(experiment).info.run_id
            model_id = log_model.log_model(client, run_id, folder / f"{seed}.onnx", folder / "example.npy")
            log_model.register(client, "mnist-mlp", run_id, model_id, {"dataset": "digits", "network": f"{seed}.onnx"})
    finally:
        mlflow.set_tracking_uri(before)
    return uri


class Service:
    """`python -m pipeline serve` as a process of its own."""

    def __init__(self, uri, folder, *arguments, **variables):
        self.log = Path(folder) / "serve.log"
        command = [sys.executable, "-m", "pipeline", "serve", "--port", "0", "--poll", "0.1", *arguments]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command, cwd=folder, env=environment(MLFLOW_TRACKING_URI=uri, **variables), stdout=log, stderr=log
            )
        self.address = self._address()

    def _address(self):
        for _ in range(DELIVERED_WITHIN_S * 10):
            found = re.search(r"at (http://\S+) ", self.log.read_text())
            if found:
                return found[1]
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.1)
        raise AssertionError(self.log.read_text())

    def stop(self):
        self.process.terminate()
        return self.process.wait(DELIVERED_WITHIN_S)


@pytest.fixture(scope="session")
def service(model_store, tmp_path_factory):
    """The service of `mnist-mlp@champion`, for all tests that do not break it."""
    blocked = tmp_path_factory.mktemp("no_torch")
    for name in ("torch", "pytorch_lightning"):
        (blocked / f"{name}.py").write_text(f"raise ImportError('{name} must not be needed')")
    path = f"{ROOT}{os.pathsep}{blocked}"
    running = Service(model_store, tmp_path_factory.mktemp("service"), PYTHONPATH=path)
    yield running
    assert running.stop() == 0
