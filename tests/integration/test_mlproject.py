"""The whole way, as a user goes it: `mlflow run` from another folder, then the record, the model, the answers."""

import json
import shlex
import signal
import subprocess
from pathlib import Path

import mlflow
import numpy as np
import pytest
import yaml
from mlflow.exceptions import MlflowException
from mlflow.projects.utils import load_project

from pipeline.commands import flags
from pipeline.commands.parsing import Parser
from pipeline.config import KNOBS, RunConfig
from pipeline.data import datasets
from pipeline.registry.predictor import MNISTS, Expected
from pipeline.tracking.folders import all_folders
from tests import faults
from tests.conftest import DELIVERED_WITHIN_S, ROOT, environment


@pytest.fixture
def client(project_run):
    mlflow.set_tracking_uri(f"sqlite:///{project_run[0] / 'mlflow.db'}")
    yield mlflow.MlflowClient()
    mlflow.set_tracking_uri(None)


@pytest.fixture
def run(client):
    experiment = client.get_experiment_by_name("mnist-mlp")
    (run,) = client.search_runs([experiment.experiment_id])
    return run


@pytest.fixture
def model(client):
    return mlflow.pyfunc.load_model("models:/mnist-mlp@champion")


def test_the_defaults_of_mlproject_are_those_of_the_code():
    parameters = yaml.safe_load((ROOT / "MLproject").read_text())["entry_points"]["main"]["parameters"]
    default = RunConfig().as_dict()
    assert {name: parameter["default"] for name, parameter in parameters.items()} == {
        name: default[name] for name in parameters
    }


def test_the_command_of_mlproject_passes_every_declared_knob_under_its_own_name():
    entry = load_project(str(ROOT)).get_entry_point("main")
    command = entry.compute_command({"epochs": 3, "rho": 0.5}, None)
    words = shlex.split(command)
    assert words[:4] == ["python", "-m", "pipeline", "train"]
    options, values = flags.parse_knobs(Parser("train"), words[4:])
    given = flags.given_knobs(values, options.config, options.project_defaults)
    assert RunConfig.from_mapping(given) == RunConfig(epochs=3, rho=0.5)


def test_conda_yaml_installs_the_one_lock():
    dependencies = yaml.safe_load((ROOT / "conda.yaml").read_text())["dependencies"]
    assert dependencies[-1] == {"pip": ["-r requirements.lock"]}
    lock = (ROOT / "requirements.lock").read_text()
    assert "://" not in lock
    pinned = [line for line in lock.splitlines() if line and not line.startswith((" ", "#"))]
    assert all("==" in line and line.endswith("\\") for line in pinned)
    assert lock.count("--hash=sha256:") >= len(pinned)


def test_there_is_exactly_one_run_and_it_is_finished(run):
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "dataset=digits epochs=2 seed=1"


def test_every_knob_is_a_param_and_what_mlflow_run_logged_stays_as_typed(run):
    assert set(KNOBS) <= set(run.data.params)
    assert run.data.params["learning_rate"] == "1e-3"
    assert run.data.params["rho"] == "0.9"


def test_the_metrics_stand_at_the_epochs(client, run):
    for name in ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "epoch_seconds"):
        history = client.get_metric_history(run.info.run_id, name)
        assert [metric.step for metric in history] == [1, 2]
    for name in ("test_loss", "test_accuracy"):
        assert [metric.step for metric in client.get_metric_history(run.info.run_id, name)] == [2]
    assert run.data.metrics["test_accuracy"] == run.data.metrics["val_accuracy"]


def test_the_dataset_is_an_input_with_digest_source_and_shape(run):
    inputs = {entry.tags[0].value: entry.dataset for entry in run.inputs.dataset_inputs}
    assert set(inputs) == {"training", "testing"}
    assert inputs["training"].digest == datasets.load("digits", "").digest
    assert json.loads(inputs["training"].source) == {"uri": "sklearn.datasets.load_digits"}
    assert json.loads(inputs["testing"].profile) == {"features_shape": [360, 28, 28], "targets_shape": [360]}


def test_tags_tell_code_packages_host_and_device(run):
    tags = run.data.tags
    assert {"git.commit", "host", "device", "cpu", "package.torch", "package.python"} <= set(tags)
    assert tags["package.mlflow"] == mlflow.__version__
    assert tags["mlflow.source.type"] == "PROJECT"


def test_the_artifacts_are_there(client, run):
    def names(path=None):
        return {entry.path for entry in client.list_artifacts(run.info.run_id, path)}

    assert {"config.yaml", "packages.txt", "predictions.npz", "test_predictions.csv", "pictures"} <= names()
    assert names("pictures") == {f"pictures/{name}.png" for name in ("learning_curves", "confusion_matrix", "mistakes")}


def test_the_logged_config_makes_the_same_run_again(client, run, tmp_path):
    path = client.download_artifacts(run.info.run_id, "config.yaml", str(tmp_path))
    config = RunConfig.from_mapping(flags.read_knobs(Path(path)))
    assert (config.epochs, config.dataset, config.learning_rate) == (2, "digits", 1e-3)


def test_the_first_version_is_the_champion_and_carries_accuracy_and_run(client, run):
    version = client.get_model_version_by_alias("mnist-mlp", "champion")
    assert version.version in (1, "1")
    assert version.run_id == run.info.run_id
    assert version.tags["run_id"] == run.info.run_id
    assert float(version.tags["test_accuracy"]) == run.data.metrics["test_accuracy"]
    assert (version.tags["validation_size"], version.tags["selected_by"]) == ("0", "")


def test_run_and_version_are_described_by_their_result(client, run):
    accuracy = 100 * run.data.metrics["test_accuracy"]
    expected = f"{accuracy:.2f} % on 360 test images; dataset=digits, 2 epochs"
    assert run.data.tags["mlflow.note.content"] == expected
    assert client.get_model_version_by_alias("mnist-mlp", "champion").description == expected


def test_the_served_model_has_exactly_the_test_accuracy_of_the_run(model, run):
    test = datasets.load("digits", "").test
    probabilities = model.predict(test.inputs.astype(np.float32))
    assert (probabilities.argmax(axis=1) == test.labels).mean() == run.data.metrics["test_accuracy"]


def test_the_recorded_predictions_are_those_of_the_served_model(client, model, run, tmp_path):
    path = client.download_artifacts(run.info.run_id, "test_predictions.csv", str(tmp_path))
    recorded = np.loadtxt(path, delimiter=",", skiprows=1)
    test = datasets.load("digits", "").test
    assert np.array_equal(recorded[:, 1], test.labels)
    assert np.array_equal(recorded[:, 3:].astype(np.float32), model.predict(test.inputs.astype(np.float32)))


def test_the_model_needs_neither_torch_nor_this_package(model):
    requirements = mlflow.pyfunc.get_model_dependencies("models:/mnist-mlp@champion")
    names = [line.split("==")[0] for line in Path(requirements).read_text().split()]
    assert names == ["mlflow", "numpy", "onnxruntime"]
    schema = model.metadata.signature
    assert str(schema.inputs) == "[Tensor('float32', (-1, 28, 28))]"
    assert str(schema.outputs) == "[Tensor('float32', (-1, 10))]"
    assert model.input_example.shape == (2, 28, 28)


def test_the_model_says_what_to_send(model):
    with pytest.raises(Exception, match=r"Shape of input \(1, 784\) does not match expected shape \(-1, 28, 28\)"):
        model.predict(np.zeros((1, 784), np.float32))
    scaled = np.full((1, 28, 28), 0.5, np.float32)
    with pytest.raises(MlflowException, match=r"brightest pixel is 0\.5, so scaled to 0\.\.1 already") as caught:
        model.predict(scaled)
    assert Expected(MNISTS, drawing=True).send in str(caught.value)


def test_the_last_lines_tell_the_result_the_run_and_what_to_type_next(project_run, run):
    folder, done = project_run
    lines = done.stdout.splitlines()
    accuracy = run.data.metrics["test_accuracy"]
    assert [line[:9] for line in lines[:2]] == ["epoch 1/2", "epoch 2/2"]
    assert f"test accuracy: {accuracy:.4f}" in done.stdout
    assert f"run        {run.info.run_id} in sqlite:///{folder}/mlflow.db" in done.stdout
    assert "model      mnist-mlp version 1" in done.stdout
    assert "mlflow models serve -m models:/mnist-mlp@champion --env-manager local" in done.stdout


def test_nothing_is_printed_that_a_user_cannot_act_on(project_run):
    _, done = project_run
    ours = [line for line in done.stderr.splitlines() if "mlflow" not in line]
    assert ours == []


TRAINING = ("python", "-m", "pipeline", "train", "--project_defaults")


@pytest.mark.slow
@pytest.mark.usefixtures("own_store")
def test_mlflow_run_with_the_id_of_an_interrupted_run_goes_on_with_it(tmp_path):
    project = tmp_path / "project"
    project.mkdir()
    for name in ("MLproject", "conda.yaml", "pipeline", "requirements.lock"):
        (project / name).symlink_to(ROOT / name)
    knobs = ["-P", "dataset=digits", "-P", "hidden_units=16", "-P", "epochs=3000", "-P", "model_name="]
    command = ["mlflow", "run", str(project), "--env-manager", "local", "--experiment-name", "mnist-mlp"]
    first = subprocess.Popen([*command, *knobs], cwd=tmp_path, env=environment(), stdout=-3, stderr=-3)
    faults.wait_until(lambda: faults.epochs_recorded(project) >= 2)
    folder = faults.only_folder(project)
    faults.signal_all(faults.processes(*TRAINING, cwd=project))
    first.wait(DELIVERED_WITHIN_S)
    before = faults.epochs_recorded(project)
    run_id = faults.wait_until(lambda: folder.state().get("run_id"))
    resume = [*command[:3], "--run-id", run_id, *command[3:], "-P", "verbose=2"]
    again = subprocess.Popen(resume, cwd=tmp_path, env=environment())
    faults.wait_until(lambda: faults.epochs_recorded(project) > before)
    faults.signal_all(faults.processes(*TRAINING, cwd=project), signal.SIGTERM)
    again.wait(DELIVERED_WITHIN_S)
    faults.see_delivered(project, MLFLOW_TRACKING_URI=f"sqlite:///{tmp_path}/mlflow.db")
    assert len(all_folders(project / "runs")) == 1
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    (run,) = client.search_runs([client.get_experiment_by_name("mnist-mlp").experiment_id])
    assert run.info.run_id == run_id
    faults.wait_until(lambda: client.get_run(run_id).info.status == "KILLED")  # MLflow writes FAILED over it at first
    steps = [metric.step for metric in client.get_metric_history(run_id, "train_loss")]
    assert steps == list(range(1, faults.epochs_recorded(project) + 1))
