"""The two servers of one registered version, started and stopped."""

import os
import socket
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path

from benchmarks.common import MNIST_DIR, OURS, ROOT, run

MODEL = "mnist-mlp"


def make_store(folder, versions=1):
    """Train and register so many versions of one epoch each; returns the store's URI."""
    for seed in range(1, versions + 1):
        command = [OURS, "-m", "pipeline", "train", "--epochs", 1, "--seed", seed, "--accelerator", "cpu"]
        if run(command, folder) is None:
            raise SystemExit("there is no model to serve")
    return f"sqlite:///{folder}/mlflow.db"


class Server:
    """A server process that answers on loopback."""

    def __init__(self, command, uri, folder):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        path = f"{OURS.parent}{os.pathsep}{os.environ['PATH']}"
        environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "MLFLOW_TRACKING_URI": uri}
        self.log = Path(folder) / f"server-{self.port}.log"
        began = time.perf_counter()
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*map(str, command), "--port", str(self.port)],
                env=environment,
                stdout=log,
                stderr=log,
                cwd=folder,
                start_new_session=True,
            )
        self._wait()
        self.seconds_to_start = time.perf_counter() - began

    def _wait(self):
        for _ in range(2400):
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/ping", timeout=5):
                    return
            except OSError:
                assert self.process.poll() is None, self.log.read_text()
                time.sleep(0.05)
        raise AssertionError(self.log.read_text())

    def memory_mb(self):
        """Resident memory of the process."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1024

    def stop(self):
        """End it and all that it started."""
        subprocess.run(["pkill", "-TERM", "-s", str(self.process.pid)], check=False)
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            subprocess.run(["pkill", "-KILL", "-s", str(self.process.pid)], check=False)


def ours(uri, folder, *flags):
    """`python -m pipeline serve`, one process."""
    return Server([OURS, "-m", "pipeline", "serve", "--model", MODEL, *flags], uri, folder)


def mlflows(uri, folder):
    """`mlflow models serve`, one worker."""
    command = [OURS.parent / "mlflow", "models", "serve", "-m", f"models:/{MODEL}@champion", "--env-manager", "local"]
    return Server([*command, "--workers", "1"], uri, folder)


def images(count):
    """So many MNIST test images, as nested lists."""
    from pipeline.data import datasets

    return datasets.load("mnist", str(MNIST_DIR)).test.inputs[:count].tolist()


def scratch():
    """A folder that goes away."""
    return tempfile.TemporaryDirectory(prefix="serving-")
