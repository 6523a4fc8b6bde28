"""Run folders that 0.1.0 wrote (commit 87e5d16) on another machine sync, resume, compare and promote today.

`runs_of_0.1.0.tar.xz` holds what these commands left, on a host `demo`, in /tmp/demo, of the user ann, with
OMP_NUM_THREADS=1 (and pictures of 8 dots per inch, by a matplotlibrc, so that they are small):

    train="python -m pipeline train --dataset digits --hidden_layers 1 --learning_rate 0.005 --batch_size 32"
    MLFLOW_TRACKING_URI=sqlite:////tmp/demo/mlflow.db $train --epochs 2 --hidden_units 1 --run_name delivered
    export MLFLOW_TRACKING_URI=http://127.0.0.1:9                     # where nobody answers
    $train --epochs 6 --hidden_units 3 --run_name finished
    $train --epochs 8 --hidden_units 3 --run_name interrupted         # SIGTERM after the third epoch
    python -m pipeline experiment trial.yaml      # learning_rate 0.001 and 0.05, one hidden unit, 3 seeds, 3 epochs
"""

import json
import tarfile
from pathlib import Path

import mlflow
import pytest

from pipeline.tracking.folders import values_of
from pipeline.tracking.journal import RunFolder
from tests.conftest import ready_store, run_pipeline

ARCHIVE = Path(__file__).parent / "runs_of_0.1.0.tar.xz"
TRIAL_RUNS = sorted(f"{rate} seed={seed}" for rate in ("0.001", "0.05") for seed in (1, 2, 3))
CHOSEN = ("train_loss", "train_accuracy", "val_loss", "val_accuracy")


def name_of(folder):
    return RunFolder(folder).started()["tags"]["mlflow.runName"]


def curves(folder):
    values = values_of(RunFolder(folder).events())
    return {name: values[name] for name in CHOSEN}


class World:
    """The folders on a machine that they do not come from, with a store of its own that is empty."""

    def __init__(self, place):
        with tarfile.open(ARCHIVE) as archive:
            archive.extractall(place, filter="data")
        self.place, self.uri = place, ready_store(place)
        self.folders = {name_of(path): path for path in (place / "runs").iterdir()}
        self.before = {name: curves(path) for name, path in self.folders.items() if name != "trial"}
        self.client = mlflow.MlflowClient(self.uri)

    def run(self, *words):
        return run_pipeline(*words, cwd=self.place, MLFLOW_TRACKING_URI=self.uri)

    def runs(self):
        ids = [each.experiment_id for each in self.client.search_experiments()]
        return {each.info.run_name: each for each in self.client.search_runs(ids)}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """All that waited is delivered."""
    world = World(tmp_path_factory.mktemp("another machine"))
    world.synced = world.run("sync")
    return world


@pytest.fixture(scope="module")
def gone_on(world):
    """What was delivered to a store that is gone is sent again, the interrupted run is gone on with."""
    world.sent_again = world.run("sync", world.folders["delivered"].name, "--as-new")
    world.resumed = world.run("train", "--resume", world.folders["interrupted"].name)
    return world


def test_what_waited_is_delivered_and_what_another_store_had_is_told(world):
    assert world.synced.returncode == 1
    assert "MLflow has everything of 9 of 10 runs" in world.synced.stdout
    assert f"sync {world.folders['delivered'].name} --as-new" in world.synced.stderr


def test_mlflow_has_every_run_with_all_that_it_recorded(world):
    check_runs(world, ["finished", *TRIAL_RUNS])


def check_runs(world, names):
    runs = world.runs()
    for name in names:
        run, start = runs[name], RunFolder(world.folders[name]).started()
        assert run.info.status == "FINISHED"
        assert run.data.params == {key: str(value) for key, value in start["params"].items()}
        assert run.data.tags["host"] == "demo"
        assert run.data.tags["git.commit"].startswith("87e5d16")
        assert [each.dataset.digest for each in run.inputs.dataset_inputs] == [data_digest(world.folders[name])] * 2
        for metric, values in world.before[name].items():
            history = world.client.get_metric_history(run.info.run_id, metric)
            assert {each.step: each.value for each in history}.items() >= values.items()
        found = {each.path for each in world.client.list_artifacts(run.info.run_id)}
        assert found >= {"config.yaml", "packages.txt", "pictures", "test_predictions.csv"}


def data_digest(folder):
    (inputs,) = (event["inputs"] for event in RunFolder(folder).events() if event["kind"] == "dataset")
    return inputs[0]["dataset"]["digest"]


def test_the_runs_of_an_experiment_are_nested_under_it(world):
    runs = world.runs()
    parents = {runs[name].data.tags["mlflow.parentRunId"] for name in TRIAL_RUNS}
    assert parents == {runs["trial"].info.run_id}


@pytest.mark.slow
def test_the_interrupted_run_ends_as_if_nothing_had_happened(gone_on, tmp_path):
    world = gone_on
    assert world.resumed.returncode == 0, world.resumed.stderr
    folder = RunFolder(world.folders["interrupted"])
    assert folder.ended()["status"] == "FINISHED"
    (resumption,) = (event for event in folder.events() if event["kind"] == "resume")
    assert resumption["tags"]["resumed_after_epoch"] == "3"
    assert resumption["tags"]["resumed.code"] != folder.started()["tags"]["code"]

    done = run_pipeline(
        "train", "--config", folder.path / "config.yaml", "--model_name", "", "--runs_dir", "again", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    (again,) = (tmp_path / "again").iterdir()
    whole, resumed, before = curves(again), curves(folder.path), world.before["interrupted"]
    here = {name: {epoch: values[epoch] for epoch in (1, 2, 3)} for name, values in whole.items()}
    assert before == {name: pytest.approx(values, abs=1e-3) for name, values in here.items()}
    # On a processor that computes the first three epochs to the same bits, so are the others.
    exact = here == before
    assert resumed == {name: values if exact else pytest.approx(values, abs=0.05) for name, values in whole.items()}
    assert list(resumed["val_loss"]) == list(range(1, 9))
    check_runs(world, ["interrupted"])


@pytest.mark.slow
def test_what_a_store_had_that_is_gone_is_sent_again(gone_on):
    assert gone_on.sent_again.returncode == 0, gone_on.sent_again.stderr
    assert "MLflow has everything of 1 run" in gone_on.sent_again.stdout
    check_runs(gone_on, ["delivered"])


def test_the_runs_compare_as_they_did(world):
    done = world.run("compare", "trial", "--out", "found")
    assert done.returncode == 0, done.stderr
    answers = world.folders["trial"] / "artifacts/comparison/comparison.json"
    then, now = json.loads(answers.read_text()), json.loads((world.place / "found/comparison.json").read_text())
    ids = {run.info.run_id: name for name, run in world.runs().items()}
    groups = {group["label"]: [ids[run_id] for run_id in group.pop("runs")] for group in now["groups"]}
    assert groups == {rate: [f"{rate} seed={seed}" for seed in (1, 2, 3)] for rate in ("0.001", "0.05")}
    assert [group.pop("runs") for group in then["groups"]] == [["", "", ""]] * 2  # MLflow had none of them then
    for group, before in zip(now["groups"], then["groups"], strict=True):
        for metric in ("val_accuracy", "val_loss", "test_accuracy"):
            found, known = ({name: each[metric][name] for name in ("n", "mean", "sd")} for each in (group, before))
            assert found == pytest.approx(known, rel=1e-12)
    (contrast,), (before,) = now["contrasts"], then["contrasts"]
    assert contrast["difference"] == pytest.approx(before["difference"], rel=1e-12)
    assert (contrast["verdict"], contrast["reason"]) == ("none", "no plan")  # of looks: there were none


@pytest.mark.slow
def test_a_version_of_an_old_run_is_promoted_or_refused(gone_on):
    world, runs = gone_on, gone_on.runs()
    entries = {each.run_id: each.version for each in world.client.search_model_versions("name = 'digits-mlp'")}
    finished, delivered = (entries[runs[name].info.run_id] for name in ("finished", "delivered"))
    champion = world.client.get_model_version_by_alias("digits-mlp", "champion")
    assert champion.version == finished
    refused = world.run("promote", delivered, "--model", "digits-mlp")
    assert refused.returncode == 1
    assert "refuse: not shown to be better; needs p < 0.025 (look 1), has " in refused.stderr
    assert "does not say which examples its run held out" in refused.stdout
    world.client.set_registered_model_alias("digits-mlp", "champion", delivered)
    done = world.run("promote", world.folders["finished"].name, "--model", "digits-mlp")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"version {finished} is champion now" in done.stdout
