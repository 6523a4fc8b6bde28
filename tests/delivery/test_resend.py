"""A record that could not be delivered where it was meant to go is sent elsewhere, or once more as a new run."""

import os
import shutil

import mlflow
import pytest

from pipeline import cli
from pipeline.delivery import blocked
from pipeline.mlflow_client.connection import connect
from pipeline.mlflow_client.tracking_uri import sqlite_uri
from pipeline.tracking.journal import Journal, RunFolder
from tests.conftest import ready_store

NOTE = "mlflow.note.content"


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """An empty store, made once."""
    folder = tmp_path_factory.mktemp("template")
    variable = os.environ.get("MLFLOW_TRACKING_URI")
    client = connect(ready_store(folder))
    client.create_experiment("here")
    client.delete_experiment(client.create_experiment("gone"))
    mlflow.set_tracking_uri(variable)
    return folder / "mlflow.db"


@pytest.fixture
def client(template, tmp_path):
    shutil.copy(template, tmp_path / "mlflow.db")
    yield mlflow.MlflowClient(sqlite_uri(tmp_path / "mlflow.db"), sqlite_uri(tmp_path / "mlflow.db"))
    mlflow.set_tracking_uri(None)


@pytest.fixture
def sync(capsys, monkeypatch):
    """`python -m pipeline sync` in this process: (exit code, output, error output)."""

    def run(*arguments):
        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
        return cli.main(["sync", *arguments]), *capsys.readouterr()

    return run


def make_run(tmp_path, name="one", experiment="here", parent="", mlflow_run_id=None, experiment_id=None):
    folder = RunFolder(tmp_path / "runs" / name)
    journal = Journal(folder)
    about = {"mlflow_run_id": mlflow_run_id, "experiment_id": experiment_id, "experiment_name": experiment}
    tags = {"mlflow.runName": name, NOTE: "ours"}
    journal.append("start", run_key=f"key of {name}", params={"epochs": 2}, parent=parent, tags=tags, **about)
    for epoch in (1, 2):
        journal.metrics({"val_loss": 1 / epoch}, epoch)
    journal.append("end", status="FINISHED", tags={})
    journal.close()
    return folder


def whole(client, folder, experiment="here"):
    """Whether MLflow has all of the run, in that experiment."""
    run = client.get_run(folder.state()["run_id"])
    assert (run.info.status, run.info.lifecycle_stage) == ("FINISHED", "active")
    assert run.info.experiment_id == client.get_experiment_by_name(experiment).experiment_id
    assert [metric.value for metric in client.get_metric_history(run.info.run_id, "val_loss")] == [1.0, 0.5]
    assert run.data.params == {"epochs": "2"}
    return run


def test_a_run_that_was_deleted_is_sent_again_as_a_new_run(client, sync, tmp_path):
    folder = make_run(tmp_path)
    assert sync()[0] == 0
    first = whole(client, folder).info.run_id
    client.delete_run(first)
    code, _, err = sync("one")
    assert code == 1
    assert "sync one --as-new" in err
    code, out, _ = sync("one", "--as-new")
    assert code == 0
    assert out.startswith(f"runs/one: sent as a new run, {first} is forgotten\n")
    second = whole(client, folder).info.run_id
    assert second != first
    assert client.get_run(first).info.lifecycle_stage == "deleted"
    assert sync()[1] == "MLflow has everything of 1 run\n"
    assert whole(client, folder).info.run_id == second


def test_so_is_one_that_is_there_and_both_stay(client, sync, tmp_path):
    folder = make_run(tmp_path)
    assert sync()[0] == 0
    first = folder.state()["run_id"]
    assert sync("one", "--as-new")[0] == 0
    assert whole(client, folder).info.run_id != first
    assert client.get_run(first).info.lifecycle_stage == "active"


@pytest.mark.parametrize(
    "about",
    [
        {"experiment": "gone"},
        {"experiment": "x" * 501},
        {"experiment_id": "77"},
        {"mlflow_run_id": "0" * 32},
    ],
)
def test_a_record_that_was_meant_for_a_place_that_is_not_there_is_sent_elsewhere(client, sync, tmp_path, about):
    folder = make_run(tmp_path, **about)
    code, _, err = sync()
    assert (code, len(err.splitlines())) == (1, 1)
    code, out, err = sync("one", "--experiment_name", "it's new")
    assert (code, err) == (0, "")
    assert out.startswith('runs/one: sent in experiment "it\'s new"\n')
    whole(client, folder, "it's new")


def test_an_emptied_store_is_filled_anew(client, sync, tmp_path, template):
    folder = make_run(tmp_path)
    assert sync()[0] == 0
    shutil.copy(template, tmp_path / "mlflow.db")
    assert sync("one")[0] == 1
    assert sync("one", "--as-new")[0] == 0
    whole(client, folder)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--as-new"], "name the runs that --as-new or --experiment_name is for"),
        (["one", "--experiment_name", "other"], "MLflow has run one already, as "),
        (["one", "--as-new", "--experiment_name", "x" * 300], "has 300 characters, MLflow takes 256"),
        (["two", "--as-new"], "run two is still running; end it before it is sent elsewhere"),
    ],
)
def test_what_cannot_be_sent_elsewhere_is_one_line_and_changes_nothing(client, sync, tmp_path, arguments, words):
    folder = make_run(tmp_path)
    assert sync()[0] == 0
    alive = Journal(RunFolder(tmp_path / "runs/two"))
    alive.append("start", run_key="two", mlflow_run_id=None, params={}, parent="", tags={})
    before = folder.state()
    code, _, err = sync(*arguments)
    assert (code, len(err.splitlines())) == (2, 1)
    assert words in err
    assert folder.state() == before
    alive.close()


def test_with_an_experiments_own_run_go_its_runs(client, sync, tmp_path):
    parent = make_run(tmp_path, "a-parent")
    children = [make_run(tmp_path, name, parent="a-parent") for name in ("b-child", "c-child")]
    assert sync()[0] == 0
    before = [folder.state()["run_id"] for folder in (parent, *children)]
    client.delete_run(before[0])
    client.delete_run(before[2])
    assert sync("a-parent", "--as-new")[0] == 0
    after = [folder.state()["run_id"] for folder in (parent, *children)]
    assert [one == other for one, other in zip(before, after, strict=True)] == [False, True, False]
    for folder in children:
        assert whole(client, folder).data.tags["mlflow.parentRunId"] == after[0]


def test_a_persons_own_description_is_not_overwritten(client, sync, tmp_path):
    folder = make_run(tmp_path)
    assert sync()[0] == 0
    run_id = folder.state()["run_id"]
    assert client.get_run(run_id).data.tags[NOTE] == "ours"

    def redelivered(note):
        journal = Journal(folder)
        journal.append("tags", tags={NOTE: note})
        journal.close()
        assert sync()[0] == 0
        return client.get_run(run_id).data.tags[NOTE]

    assert redelivered("ours, newer") == "ours, newer"
    client.set_tag(run_id, NOTE, "the one for the paper")
    assert redelivered("ours, newest") == "the one for the paper"


def test_runs_of_two_stores_go_each_to_its_own(client, sync, tmp_path, template):
    shutil.copy(template, tmp_path / "other.db")
    other = sqlite_uri(tmp_path / "other.db")
    one, two = make_run(tmp_path, "one"), make_run(tmp_path, "two")
    one.write_state({"tracking_uri": other})
    assert sync()[0] == 0
    assert (one.state()["tracking_uri"], two.state()["tracking_uri"]) == (other, sqlite_uri(tmp_path / "mlflow.db"))
    whole(client, two)
    whole(mlflow.MlflowClient(other, other), one)


def test_sync_asks_a_place_of_files_that_keeps_everybody_waiting_once_for_all_runs(client, sync, tmp_path, monkeypatch):
    """As one that swallows packets; all else arrives, and comes to `sync` once it answers."""
    runs = [make_run(tmp_path, name) for name in ("one", "two")]
    for folder in runs:
        (folder.artifacts / "a.txt").parent.mkdir()
        (folder.artifacts / "a.txt").write_text("content")
        journal = Journal(folder)
        journal.artifact(folder.artifacts / "a.txt")
        journal.append("end", status="FINISHED", tags={})
        journal.close()
    sent = []

    def log_artifact(self, *words):
        sent.append(words)
        monkeypatch.setattr(blocked, "SLOW_S", -1.0)  # whatever it took
        raise ConnectionError("connect timeout on the bucket")

    monkeypatch.setattr(mlflow.MlflowClient, "log_artifact", log_artifact)
    code, _, told = sync("--runs_dir", str(tmp_path / "runs"))
    words = "MLflow does not take for now: artifact: ConnectionError: connect timeout on the bucket"
    assert (code, len(sent)) == (1, 1)
    assert [line.endswith(words) for line in told.splitlines()] == [True, True]
    ids = [folder.state()["run_id"] for folder in runs]
    assert [client.get_run(run_id).info.status for run_id in ids] == ["FINISHED", "FINISHED"]
