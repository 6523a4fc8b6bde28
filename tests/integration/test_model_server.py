"""`mlflow models serve` answers the README's requests, where torch cannot be imported."""

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from pipeline.data import datasets
from pipeline.registry.predictor import MNISTS, Expected
from tests.conftest import DELIVERED_WITHIN_S, environment, free_port


@pytest.fixture(scope="module")
def address(project_run, tmp_path_factory):
    """The address of a model server whose environment has no torch and not this package."""
    folder, _ = project_run
    blocked = tmp_path_factory.mktemp("blocked")
    for name in ("torch", "pipeline", "pytorch_lightning"):
        (blocked / f"{name}.py").write_text(f"raise ImportError('{name} must not be needed')")
    port = free_port()
    command = ["mlflow", "models", "serve", "-m", "models:/mnist-mlp@champion", "--env-manager", "local"]
    variables = {"PYTHONPATH": str(blocked), "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"}
    log = (blocked / "log").open("wb")
    server = subprocess.Popen(
        [*command, "--port", str(port), "--workers", "1"],
        env={**environment(), **variables},
        stdout=log,
        stderr=log,
        cwd=blocked,
        start_new_session=True,
    )
    yield wait_for(f"http://127.0.0.1:{port}", server, blocked / "log")
    subprocess.run(["pkill", "-TERM", "-s", str(server.pid)], check=False)
    server.wait(DELIVERED_WITHIN_S)
    log.close()


def wait_for(address, server, log):
    for _ in range(DELIVERED_WITHIN_S * 5):
        assert server.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(f"{address}/ping", timeout=5):
                return address
        except OSError:
            time.sleep(0.2)
    raise AssertionError(log.read_text())


def ask(address, body):
    request = urllib.request.Request(
        f"{address}/invocations", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=DELIVERED_WITHIN_S) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


@pytest.fixture(scope="module")
def test_split():
    return datasets.load("digits", "").test


def test_it_gives_the_probabilities_that_the_run_recorded(address, test_split, project_run):
    status, answer = ask(address, {"inputs": test_split.inputs[:7].tolist()})
    assert status == 200
    (recorded,) = Path(project_run[0]).glob("runs/*/artifacts/test_predictions.csv")
    expected = np.loadtxt(recorded, delimiter=",", skiprows=1)[:7, 3:]
    assert np.abs(np.array(answer["predictions"]) - expected).max() < 1e-6


def test_it_says_what_to_send(address):
    status, answer = ask(address, {"inputs": np.full((1, 28, 28), 0.5).tolist()})
    assert status == 400
    assert Expected(MNISTS, drawing=True).send in answer["message"]
    status, answer = ask(address, {"inputs": [[0.0] * 784]})
    assert status == 400
    assert "does not match expected shape (-1, 28, 28)" in answer["message"]


def test_torch_is_really_not_importable_there(address, tmp_path_factory):
    (blocked,) = tmp_path_factory.getbasetemp().glob("blocked0")
    code = "import torch"
    done = subprocess.run([sys.executable, "-c", code], env=environment(PYTHONPATH=str(blocked)), capture_output=True)
    assert b"torch must not be needed" in done.stderr
