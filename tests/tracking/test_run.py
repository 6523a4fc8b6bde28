"""A run's record: every call is an event with its content, the uploader hears of it, and `with` owns the end."""

import contextlib
import math
import signal
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pipeline import signals
from pipeline.signals import Interrupted, interruptions
from pipeline.tracking import run
from pipeline.tracking.journal import Journal, RunFolder
from pipeline.tracking.run import Run


class Listener:
    """How many events stood in the journal each time it was notified."""

    def __init__(self, folder):
        self.folder, self.heard = folder, []

    def notify(self):
        self.heard.append(len(self.folder.events()))


@pytest.fixture(autouse=True)
def provenance(monkeypatch):
    """Fixed; the real one is test_provenance's."""
    found = SimpleNamespace(diff=b"")
    monkeypatch.setattr(run, "git_tags", lambda: {"commit": "c0ffee"})
    monkeypatch.setattr(run, "installed", lambda: ["numpy==2", "torch==2"])
    monkeypatch.setattr(run, "checkout", lambda: found)
    return found


def new(path):
    folder = RunFolder(path)
    return Run(Journal(folder), Listener(folder))


@pytest.fixture
def record(tmp_path):
    return new(tmp_path / "runs" / "run")


def events(record, kind):
    return [event for event in record.folder.events() if event["kind"] == kind]


def kinds(record):
    return [event["kind"] for event in record.folder.events()]


def end_of(record):
    end = record.folder.ended()
    return end and (end["status"], end["tags"].get("failure_reason"))


def left(record, error, before=lambda: None):
    """Begin the run, do something, and leave it by the error, if there is one."""

    if error is None:
        leave(record, None, before)
        return
    with pytest.raises(type(error)) as caught:
        leave(record, error, before)
    assert caught.value is error


def leave(record, error, before=lambda: None):
    with record:
        record.start("flowers", {}, {})
        before()
        if error:
            raise error


def test_a_run_begins_with_what_was_chosen_and_where_it_belongs(record):
    record.start("flowers", {"epochs": 3}, {"variant": "a"}, parent="parent folder", datasets=[{"context": "training"}])
    (start,) = events(record, "start")
    assert (start["params"], start["tags"]) == ({"epochs": 3}, {"commit": "c0ffee", "variant": "a"})
    assert (start["parent"], start["experiment_name"]) == ("parent folder", "flowers")
    assert (start["mlflow_run_id"], start["experiment_id"], start["n"]) == (None, None, 0)
    assert len(start["run_key"]) == 32
    assert [event["inputs"] for event in events(record, "dataset")] == [[{"context": "training"}]]


def test_a_run_without_data_says_nothing_of_data_and_what_is_given_goes_before_what_git_says(record):
    record.start("flowers", {}, {"commit": "given"})
    assert kinds(record) == ["start"]
    assert record.folder.started()["tags"] == {"commit": "given"}


def test_each_run_has_a_key_of_its_own(tmp_path):
    keys = set()
    for name in ("a", "b"):
        record = new(tmp_path / name)
        record.start("flowers", {}, {})
        keys.add(record.folder.started()["run_key"])
    assert len(keys) == 2


def test_what_mlflow_run_says_in_the_environment_goes_before_the_name(record, monkeypatch):
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "of the environment")
    monkeypatch.setenv("MLFLOW_RUN_ID", "abc")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "7")
    record.start("given", {}, {})
    start = record.folder.started()
    assert start["experiment_name"] == "of the environment"
    assert (start["mlflow_run_id"], start["experiment_id"]) == ("abc", "7")


def test_packages_are_an_artifact_and_uncommitted_changes_where_there_are_any(record, provenance):
    record.provenance()
    assert [event["path"] for event in events(record, "artifact")] == ["packages.txt"]
    assert (record.folder.artifacts / "packages.txt").read_text() == "numpy==2\ntorch==2\n"
    provenance.diff = b"diff --git \xff\n"
    record.provenance()
    paths = [event["path"] for event in events(record, "artifact")]
    assert paths == ["packages.txt", "packages.txt", "uncommitted.diff"]
    assert (record.folder.artifacts / "uncommitted.diff").read_bytes() == b"diff --git \xff\n"


def test_a_resumption_has_its_params_and_tags(record):
    record.resume({"epochs": 30}, {"resumed.commit": "c0ffee"})
    (resume,) = events(record, "resume")
    assert (resume["params"], resume["tags"]) == ({"epochs": 30}, {"resumed.commit": "c0ffee"})


def test_the_uploader_hears_of_every_event_once_it_stands(record):
    record.start("flowers", {}, {}, datasets=[{}])
    record.metrics({"loss": 1.0}, 1)
    record.tags({"a": "1"})
    record.describe("what it gave")
    record.text_artifact("notes.txt", "text")
    record.end("FINISHED")
    assert record.uploader.heard == list(range(1, 8))


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


def test_left_without_an_error_it_is_finished(record):
    left(record, None)
    assert end_of(record) == ("FINISHED", None)


def test_an_error_is_its_end_with_reason_and_traceback_and_no_password_in_either(record):
    left(record, RuntimeError("no answer from http://bob:S3cret@host/"))
    reason = "RuntimeError: no answer from http://host/"
    assert end_of(record) == ("FAILED", reason)
    text = (record.folder.artifacts / "traceback.txt").read_text()
    assert text.startswith("Traceback (most recent call last):\n  File ")
    assert text.endswith(f"\n{reason}\n")
    assert kinds(record) == ["start", "artifact", "end"]


def test_a_reason_that_is_given_is_told_without_its_secrets(record):
    left(record, None, lambda: record.end("FAILED", "1 of 2 runs failed: a: 401 for https://h/x?token=abc"))
    assert end_of(record) == ("FAILED", "1 of 2 runs failed: a: 401 for https://h/x?token=***")


def test_a_full_disk_costs_the_traceback_and_not_the_end(record, monkeypatch):
    def full(self, name, text):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Run, "text_artifact", full)
    left(record, RuntimeError("why"))
    assert (kinds(record), end_of(record)) == (["start", "end"], ("FAILED", "RuntimeError: why"))


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (Interrupted(signal.SIGTERM), "SIGTERM"),
        (Interrupted(signal.SIGINT), "Ctrl-C"),
        (KeyboardInterrupt(), "Ctrl-C"),
    ],
)
def test_a_signal_ends_it_as_killed_without_a_traceback(record, error, reason):
    left(record, error)
    assert (kinds(record), end_of(record)) == (["start", "end"], ("KILLED", reason))


@pytest.mark.parametrize("error", [None, ValueError("no such data"), Interrupted(signal.SIGTERM)])
@pytest.mark.parametrize("before", [[], ["start", "end"]])
def test_what_never_began_here_is_left_as_it_is(tmp_path, error, before):
    journal = Journal(RunFolder(tmp_path / "run"))
    for kind in before:
        journal.append(kind, status="FAILED", tags={})
    record = Run(journal, Listener(journal.folder))
    with contextlib.suppress(ValueError, Interrupted), record:
        if error:
            raise error
    assert (kinds(record), record.began) == (before, False)


def test_an_end_that_was_written_inside_stays_the_only_one(record):
    left(record, ValueError("diverged"), lambda: record.end("FAILED", "diverged in epoch 2"))
    assert (kinds(record), end_of(record)) == (["start", "end"], ("FAILED", "diverged in epoch 2"))


def test_a_signal_while_the_end_is_written_waits_for_it(record, monkeypatch):
    append = record.journal.append_or_hold

    def interrupted(kind, **content):
        if kind == "end":
            signal.raise_signal(signal.SIGTERM)
        append(kind, **content)

    with interruptions(), pytest.raises(Interrupted, match="SIGTERM"):
        left(record, None, lambda: monkeypatch.setattr(record.journal, "append_or_hold", interrupted))
    assert end_of(record) == ("FINISHED", None)


def test_a_later_signal_that_leaves_no_time_still_ends_it_as_killed(record):
    with record:
        record.start("flowers", {}, {})
        (word,) = signals._last_words
        word("SIGTERM")
        assert end_of(record) == ("KILLED", "SIGTERM")
    assert (signals._last_words, kinds(record)) == ([], ["start", "end"])


@pytest.mark.parametrize("error", [None, ValueError("why")])
def test_a_signal_in_the_moment_of_leaving_ends_it_as_killed(record, monkeypatch, error):
    def at_once(error):
        raise Interrupted(signal.SIGTERM)

    monkeypatch.setattr(record, "end_by", at_once)
    with pytest.raises(type(error) if error else Interrupted):
        leave(record, error)
    assert end_of(record) == ("KILLED", "SIGTERM")


def test_it_knows_whether_it_was_started_or_resumed_here(tmp_path):
    started, resumed, neither = (new(tmp_path / name) for name in ("a", "b", "c"))
    started.start("flowers", {}, {})
    resumed.resume({}, {})
    assert [record.began for record in (started, resumed, neither)] == [True, True, False]
    assert started.folder.started()["parent"] == ""


def test_a_disk_that_is_full_does_not_keep_a_signal_from_ending_the_record(record, monkeypatch):
    def fill_the_disk():
        full = OSError(28, "No space left")
        monkeypatch.setattr(Journal, "_write", lambda self, event: (_ for _ in ()).throw(full))

    left(record, Interrupted(signal.SIGTERM), fill_the_disk)
    assert [event["kind"] for event in record.journal.held] == ["end"]


@pytest.mark.parametrize("status", ["FINISHED", "FAILED", "KILLED"])
def test_an_end_has_its_status_and_a_reason_where_there_is_one(record, status):
    for reason in ("", "why"):
        record.resume({}, {})
        record.end(status, reason)
    first, second = events(record, "end")
    assert (first["status"], first["tags"]) == (status, {})
    assert (second["status"], second["tags"]) == (status, {"failure_reason": "why"})


def test_each_value_is_recorded_with_the_time_that_was_given(record):
    record.metrics({"loss": 1.0}, 2, 77)
    record.metrics({"loss": 1.0}, 2, 78)
    found = [(event["step"], event["time"], event["values"]) for event in record.folder.events()]
    assert found == [(2, 77, {"loss": 1.0}), (2, 78, {"loss": 1.0})]


class Wordless:
    def __str__(self):
        raise RuntimeError("no word")


def test_whatever_is_given_as_a_tag_or_a_param_is_a_text_and_nothing_after_it_suffers(record):
    record.start("flowers", {}, {})
    odd = {"fold": np.int64(3), "path": Path("a/b"), "rate": np.float32(0.5), "one": torch.tensor(1), 5: None}
    record.tags(odd)
    record.params(odd)
    record.tags({"wordless": Wordless()})
    record.end("FINISHED")
    texts = {"fold": "3", "path": "a/b", "rate": "0.5", "one": "tensor(1)", "5": "None"}
    assert [event.get("tags", event.get("params")) for event in record.folder.events()[1:-1]] == [
        texts,
        texts,
        {"wordless": "<Wordless that has no text: RuntimeError>"},
    ]
    assert end_of(record) == ("FINISHED", None)


def test_whatever_is_a_number_is_a_metric_and_a_text_among_them_a_tag(record):
    record.metrics(
        {"a": np.float32(0.5), "b": torch.tensor(2), "c": True, 5: 1, "d": math.nan, "e": "red"}, np.int64(3)
    )
    metrics, tags = record.folder.events()
    assert math.isnan(metrics["values"].pop("d"))
    assert (metrics["values"], metrics["step"]) == ({"a": 0.5, "b": 2.0, "c": 1.0, "5": 1.0}, 3)
    assert tags["tags"] == {"e": "red"}


def test_what_has_no_text_that_can_be_written_costs_no_run_its_end(record):
    left(record, ValueError(f"cannot read {'caf' + chr(0xDCE9)}"))
    assert end_of(record) == ("FAILED", "ValueError: cannot read caf\ufffd")
    text = (record.folder.artifacts / "traceback.txt").read_text()
    assert text.endswith("\nValueError: cannot read caf?\n")


def test_an_error_without_words_is_an_end_too(record):
    class WordlessError(Wordless, Exception):
        pass

    left(record, WordlessError())
    status, reason = end_of(record)
    assert (status, reason) == ("FAILED", "WordlessError: <WordlessError that has no text: RuntimeError>")


def test_a_copied_file_whose_name_is_no_utf_8_lies_under_one_that_is(record, tmp_path):
    (tmp_path / "caf\udce9.txt").write_text("x")
    record.copied_artifact(tmp_path / "caf\udce9.txt")
    (event,) = events(record, "artifact")
    assert (event["path"], (record.folder.artifacts / event["path"]).read_text()) == ("caf\ufffd.txt", "x")
