"""The record as the training sees it: every call is an event with its content, and the sender hears of it."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from pipeline.config import RunConfig
from pipeline.data.datasets import ImageData, Split
from pipeline.tracking import run
from pipeline.tracking.folders import Journal, RunFolder
from pipeline.tracking.run import RunLogger, RunRecord, run_name, what_differs


class UploaderProcess:
    """How many events stood in the journal each time it was notified."""

    def __init__(self, folder):
        self.folder, self.heard = folder, []

    def notify(self):
        self.heard.append(len(self.folder.events()))


@pytest.fixture(autouse=True)
def provenance(monkeypatch):
    """Fixed ones; the real are test_provenance'."""
    found = SimpleNamespace(diff=b"")
    monkeypatch.setattr(run, "git_tags", lambda: {"commit": "c0ffee"})
    monkeypatch.setattr(run, "code_digest", lambda: "abcdef012345")
    monkeypatch.setattr(run, "machine_tags", lambda: {"host": "here"})
    monkeypatch.setattr(run, "installed", lambda: ["numpy==2", "torch==2"])
    monkeypatch.setattr(run, "user_name", lambda: "me")
    monkeypatch.setattr(run, "checkout", lambda: found)
    return found


@pytest.fixture
def record(tmp_path):
    folder = RunFolder(tmp_path / "runs" / "run")
    return RunRecord(Journal(folder), UploaderProcess(folder))


def images(count):
    return Split(np.zeros((count, 28, 28), np.uint8), np.zeros(count, np.uint8))


SOURCE = ImageData("digits", "/data", images(5), images(3))


def events(record, kind):
    return [event for event in record.folder.events() if event["kind"] == kind]


def test_a_run_begins_with_all_knobs_tags_and_where_it_belongs(record):
    record.start(RunConfig(epochs=3), SOURCE, {"variant": "a", "host": "given"}, "parent folder")
    (start,) = events(record, "start")
    assert start["params"] == RunConfig(epochs=3).as_dict()
    assert start["tags"] == {
        "mlflow.runName": "sample epochs=3 seed=1",
        "mlflow.user": "me",
        "mlflow.source.name": "pipeline",
        "mlflow.source.type": "LOCAL",
        "commit": "c0ffee",
        "code": "abcdef012345",
        "host": "given",
        "variant": "a",
    }
    assert (start["parent"], start["experiment_name"]) == ("parent folder", "mnist-mlp")
    assert (start["mlflow_run_id"], start["experiment_id"], start["n"]) == (None, None, 0)
    assert len(start["run_key"]) == 32


def test_each_run_has_a_key_of_its_own(tmp_path):
    keys = set()
    for name in ("a", "b"):
        folder = RunFolder(tmp_path / name)
        record = RunRecord(Journal(folder), UploaderProcess(folder))
        record.start(RunConfig(), SOURCE, {}, "")
        keys.add(folder.started()["run_key"])
    assert len(keys) == 2


def test_what_mlflow_run_says_in_the_environment_goes_before_the_knob(record, monkeypatch):
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "of the environment")
    monkeypatch.setenv("MLFLOW_RUN_ID", "abc")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "7")
    record.start(RunConfig(experiment_name="of the knob"), SOURCE, {}, "")
    start = record.folder.started()
    assert start["experiment_name"] == "of the environment"
    assert (start["mlflow_run_id"], start["experiment_id"]) == ("abc", "7")
    assert start["params"]["experiment_name"] == "of the knob"


def test_the_experiment_is_the_knobs_where_the_environment_says_nothing(record):
    record.start(RunConfig(experiment_name="of the knob"), SOURCE, {}, "")
    assert record.folder.started()["experiment_name"] == "of the knob"


@pytest.mark.parametrize(("held_out", "profile"), [(0, {}), (2, {"held_out_for_validation": 2})])
def test_what_was_trained_and_evaluated_on_is_recorded_as_mlflow_takes_it(record, held_out, profile):
    record.start(RunConfig(validation_size=held_out), SOURCE, {}, "")
    (dataset,) = events(record, "dataset")
    training, testing = dataset["inputs"]
    assert [each["context"] for each in dataset["inputs"]] == ["training", "testing"]
    spec = {"type": "tensor", "tensor-spec": {"dtype": "uint8", "shape": [-1, 28, 28]}}
    label = {"type": "tensor", "tensor-spec": {"dtype": "uint8", "shape": [-1]}}
    for each, name, count, more in ((training, "training", 5, profile), (testing, "testing", 3, {})):
        found = each["dataset"]
        assert found.keys() == {"name", "digest", "source_type", "source", "schema", "profile"}
        assert (found["name"], found["digest"], found["source_type"]) == (f"digits-{name}", SOURCE.digest, "local")
        assert json.loads(found["source"]) == {"uri": "/data"}
        schema = json.loads(found["schema"])["mlflow_tensorspec"]
        assert {key: json.loads(text) for key, text in schema.items()} == {"features": [spec], "targets": [label]}
        shapes = {"features_shape": [count, 28, 28], "targets_shape": [count]}
        assert json.loads(found["profile"]) == {**shapes, **more}


def test_packages_are_an_artifact_and_uncommitted_changes_where_there_are_any(record, provenance):
    record.start(RunConfig(), SOURCE, {}, "")
    assert [event["path"] for event in events(record, "artifact")] == ["packages.txt"]
    assert (record.folder.artifacts / "packages.txt").read_text() == "numpy==2\ntorch==2\n"
    provenance.diff = b"diff --git \xff\n"
    record.resume(0, {})
    paths = [event["path"] for event in events(record, "artifact")]
    assert paths == ["packages.txt", "packages.txt", "uncommitted.diff"]
    assert (record.folder.artifacts / "uncommitted.diff").read_bytes() == b"diff --git \xff\n"


def test_a_resumption_says_after_which_epoch_from_what_code_and_what_has_grown(record):
    record.resume(4, {"epochs": 30})
    (resume,) = events(record, "resume")
    assert resume["params"] == {"epochs": 30}
    code = {"resumed.commit": "c0ffee", "resumed.code": "abcdef012345"}
    assert resume["tags"] == {"resumed_after_epoch": "4", "resumed.epochs": "30", **code}


def test_the_sender_hears_of_every_event_once_it_stands(record):
    record.start(RunConfig(), SOURCE, {}, "")
    record.metrics({"loss": 1.0}, 1)
    record.tags({"a": "1"})
    record.describe("what it gave")
    record.text_artifact("notes.txt", "text")
    record.end("FINISHED")
    assert record.sender.heard == list(range(1, 9))
    assert len(record.folder.events()) == 8


def test_tags_and_the_description_are_tags(record):
    record.tags({"a": "1"})
    record.describe("what it gave")
    assert [event["tags"] for event in events(record, "tags")] == [{"a": "1"}, {"mlflow.note.content": "what it gave"}]


def test_a_text_lies_in_the_folder_it_names_before_its_event(record):
    record.text_artifact("tables/deep/result.txt", "Übung\n")
    record.text_artifact("tables/deep/result.txt", "again\n")
    assert (record.folder.artifacts / "tables/deep/result.txt").read_text() == "again\n"
    assert [event["path"] for event in events(record, "artifact")] == ["tables/deep/result.txt"] * 2


def test_a_model_is_named_by_paths_in_the_folder(record):
    network, example = record.folder.artifacts / "network.onnx", record.folder.path / "example.npy"
    record.model(network, example, "mnist-mlp", {"dataset": "digits"}, "a line")
    record.model(network, example, "", {})
    first, second = events(record, "model")
    assert {name: first[name] for name in ("model_name", "tags", "description", "network", "example")} == {
        "model_name": "mnist-mlp",
        "tags": {"dataset": "digits"},
        "description": "a line",
        "network": "artifacts/network.onnx",
        "example": "example.npy",
    }
    assert (second["model_name"], second["description"]) == ("", "")


def fail(record, words="no answer from http://bob:S3cret@host/"):
    try:
        raise RuntimeError(words)
    except RuntimeError as error:
        record.fail(error)


def test_a_failure_has_its_reason_and_its_traceback_and_no_password_in_either(record):
    fail(record)
    (end,) = events(record, "end")
    reason = "RuntimeError: no answer from http://host/"
    assert (end["status"], end["tags"]) == ("FAILED", {"failure_reason": reason})
    text = (record.folder.artifacts / "traceback.txt").read_text()
    assert text.startswith("Traceback (most recent call last):\n  File ")
    assert text.endswith(f"\n{reason}\n")
    assert [event["kind"] for event in record.folder.events()] == ["artifact", "end"]


def test_a_full_disk_costs_the_traceback_and_not_the_end(record, monkeypatch):
    def full(self, name, text):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(RunRecord, "text_artifact", full)
    fail(record, "why")
    assert [event["kind"] for event in record.folder.events()] == ["end"]
    assert record.folder.ended()["tags"] == {"failure_reason": "RuntimeError: why"}


@pytest.mark.parametrize("status", ["FINISHED", "FAILED", "KILLED"])
def test_an_end_has_its_status_and_a_reason_where_there_is_one(record, status):
    record.end(status)
    record.end(status, "why")
    first, second = events(record, "end")
    assert (first["status"], first["tags"]) == (status, {})
    assert (second["status"], second["tags"]) == (status, {"failure_reason": "why"})


def test_lightning_logs_epochs_with_the_time_at_which_they_were_measured(record):
    logger = RunLogger(record)
    logged = {"loss": 1.0, "time_ms": 512.0}
    logger.log_metrics(logged, 3)
    logger.log_metrics({"loss": 2.0})
    logger.log_hyperparams({"epochs": 3})
    first, second = record.folder.events()
    assert (first["values"], first["step"], first["time"]) == ({"loss": 1.0}, 3, 512)
    assert type(first["time"]) is int
    assert (second["values"], second["step"]) == ({"loss": 2.0}, 0)
    assert second["time"] > 512
    assert logged == {"loss": 1.0, "time_ms": 512.0}
    assert (logger.name, logger.version) == ("runs", "run")


def test_only_the_first_rank_logs(record, monkeypatch):
    monkeypatch.setattr(run.rank_zero_only, "rank", 1, raising=False)
    RunLogger(record).log_metrics({"loss": 1.0}, 1)
    assert record.folder.events() == []


def test_a_value_is_recorded_once_a_step_with_the_time_that_was_given(record):
    record.metrics({"loss": 1.0}, 2, 77)
    record.metrics({"loss": 1.0}, 2, 78)
    (event,) = record.folder.events()
    assert (event["step"], event["time"], event["values"]) == (2, 77, {"loss": 1.0})


@pytest.mark.parametrize(
    ("knobs", "differs"),
    [
        ({}, "sample"),
        ({"dropout": 0.5, "hidden_units": 16}, "hidden_units=16 dropout=0.5"),
        ({"optimizer": "sgd", "seed": 3, "epochs": 2, "verbose": "0"}, "optimizer=sgd"),
        ({"data_dir": "/d", "runs_dir": "r", "model_name": "m", "experiment_name": "e"}, "sample"),
    ],
)
def test_a_run_is_called_by_what_differs_from_the_sample(knobs, differs):
    config = RunConfig(**knobs)
    assert what_differs(config) == differs
    assert run_name(config) == f"{differs} epochs={config.epochs} seed={config.seed}"
    assert run_name(RunConfig(run_name="mine", **knobs)) == "mine"
    assert what_differs(RunConfig(run_name="mine", **knobs)) == differs
