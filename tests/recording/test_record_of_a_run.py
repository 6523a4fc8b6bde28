"""What a training writes into its record, in which order and with which values, and what it hands to the fit."""

import contextlib
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from pipeline.config import RunConfig
from pipeline.config.own_code import OwnCodeError
from pipeline.data import Dataset
from pipeline.data_spec import DataSpec
from pipeline.divergence import TAG, DivergedError
from pipeline.launchers import RESUME_FROM, RUN_FOLDER
from pipeline.recording import export_trial, results, resuming
from pipeline.recording import record as recording
from pipeline.recording.code_digest import code_digest
from pipeline.recording.description import dataset_inputs, identity_tags
from pipeline.recording.epoch_logger import EpochLogger
from pipeline.tracking import run as run_module
from pipeline.tracking.journal import Journal, RunFolder, RunIsAliveError
from pipeline.tracking.run import Run
from pipeline.training import building, fit, rehearsal
from pipeline.training.news import EpochNews, StepNews
from tests import ranks
from tests.conftest import DELIVERED_WITHIN_S
from tests.tracking.idle_uploader import IdleUploader

OWN = "tests.own_training_code:Network"
SMALL = RunConfig(dataset="tests.small_data:thirty", epochs=1, hidden_units=3, accelerator="cpu")
NAN = float("nan")


@pytest.fixture(autouse=True)
def same_provenance(monkeypatch):
    """What git, the packages and the machine say costs seconds, and is test_provenance's."""
    for place in (run_module, recording):
        monkeypatch.setattr(place, "git_tags", lambda: {"commit": "c0ffee"})
    monkeypatch.setattr(recording, "machine_tags", lambda: {"host": "here"})
    monkeypatch.setattr(run_module, "installed", lambda: ["torch==2"])
    monkeypatch.setattr(run_module, "checkout", lambda: SimpleNamespace(diff=b""))


@pytest.fixture
def run(tmp_path):
    """One that has not begun."""
    journal = Journal(RunFolder(tmp_path / "runs/run"))
    yield Run(journal, IdleUploader())
    journal.close()


def events(run, *kinds):
    return [event for event in run.folder.events() if event["kind"] in kinds or not kinds]


# Before a record is opened


def test_what_is_ready_are_the_data_and_the_config_with_its_model_named():
    config, data = recording.ready(SMALL.replace(validation_size=9))
    assert config == SMALL.replace(validation_size=9, model_name="thirty-mlp")
    assert [len(each) for each in (data.train_examples, data.val_examples, data.test_examples)] == [21, 9, 5]


def test_a_rehearsal_knows_how_many_processes_share_an_epoch(monkeypatch):
    known = []
    monkeypatch.setattr(rehearsal, "rehearse", lambda config, data, processes: known.append(processes))
    recording.ready(SMALL)
    recording.ready(SMALL.replace(devices="2", strategy="ddp"))
    assert known == [1, 2]


@pytest.mark.parametrize(
    ("knobs", "kind", "words"),
    [
        ({"strategy": "nonsense"}, ValueError, "^Lightning cannot train with accelerator cpu, .* strategy nonsense, "),
        (
            {"devices": "2", "strategy": "ddp", "validation_size": 1},
            ValueError,
            "^2 processes cannot share 1 validation example; ",
        ),
        (
            {"hidden_units": 4},
            ValueError,
            r"^hidden_units 4, .*, batch_size 128: training 3,210 weights in batches of 30 needs about ",
        ),
        ({"augment": "tests.own_training_code:nothing"}, OwnCodeError, "^tests.own_training_code:nothing gave NoneTyp"),
    ],
)
def test_what_a_user_has_to_put_right_is_told_before_there_is_a_record(monkeypatch, knobs, kind, words):
    if "hidden_units" in knobs:
        monkeypatch.setattr(building, "memory_here", lambda: 1)
    with pytest.raises(kind, match=words):
        recording.ready(SMALL.replace(**knobs))
    assert list(Path.cwd().iterdir()) == []


def test_garbage_is_left_alone_while_what_trains_is_imported_and_only_then(monkeypatch):
    name, paused = "pipeline.training.fit", []

    @contextlib.contextmanager
    def pause():
        paused.append(name in sys.modules)
        sys.modules[name] = fit  # as the import does
        yield

    monkeypatch.setattr(recording, "gc_paused", pause)
    monkeypatch.delitem(sys.modules, name)
    for _ in range(2):
        recording.ready(SMALL)
        assert paused == [False]


def test_a_journal_is_opened_once_at_a_time(tmp_path):
    folder = RunFolder(tmp_path / "runs/run")
    journal = recording.open_journal(folder)
    assert journal.folder is folder
    with pytest.raises(RunIsAliveError):
        recording.open_journal(folder)
    journal.close()


def test_a_folder_that_cannot_be_written_is_told_with_what_to_give_instead(tmp_path):
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(ValueError, match="cannot be written") as caught:
        recording.open_journal(RunFolder(tmp_path / "runs/run"))
    begin, end = f"runs_dir {tmp_path / 'runs'} cannot be written ([Errno ", "); give another with --runs_dir"
    assert str(caught.value).startswith(begin)
    assert str(caught.value).endswith(end)


# The beginning


def test_a_record_begins_with_the_knobs_the_tags_the_data_the_packages_and_the_config(run):
    config, data = RunConfig(network=OWN, validation_size=9, experiment_name="flowers"), ranks.small_data()
    recording.start(config, run, data, {"variant": "a"}, parent="the whole")
    start, dataset, *artifacts = events(run)
    assert (start["kind"], start["experiment_name"], start["parent"]) == ("start", "flowers", "the whole")
    assert start["params"] == config.as_dict()
    code = {"commit": "c0ffee", "code": code_digest([OWN])}
    assert start["tags"] == {**identity_tags(config), **code, "host": "here", "variant": "a"}
    assert code_digest([OWN]) != code_digest()
    assert (dataset["kind"], dataset["inputs"]) == ("dataset", dataset_inputs(data.source, 9))
    assert [(each["kind"], each["path"]) for each in artifacts] == [
        ("artifact", "packages.txt"),
        ("artifact", "config.yaml"),
    ]
    text = resuming.config_text(config)
    assert (run.folder.path / "config.yaml").read_text() == text == (run.folder.artifacts / "config.yaml").read_text()


def test_a_run_of_its_own_belongs_to_none_and_has_the_tags_of_every_run(run):
    recording.start(RunConfig(), run, ranks.small_data())
    (start,) = events(run, "start")
    assert start["parent"] == ""
    assert start["tags"] == {**identity_tags(RunConfig()), "commit": "c0ffee", "code": code_digest(), "host": "here"}


def test_a_tag_that_is_given_takes_the_place_of_one_that_every_run_gets(run):
    recording.start(RunConfig(), run, ranks.small_data(), {"mlflow.runName": "a seed=1", "host": "elsewhere"})
    (start,) = events(run, "start")
    assert (start["tags"]["mlflow.runName"], start["tags"]["host"]) == ("a seed=1", "elsewhere")


def test_what_is_lost_of_a_record_is_told_as_it_is_gone_on_with(tmp_path, capsys):
    journal = Journal(RunFolder(tmp_path / "run"))
    recording.start(SMALL, Run(journal, IdleUploader()), ranks.small_data())
    journal.metrics({"train_loss": 1.5}, 1)
    journal.close()
    path = tmp_path / "run/journal.jsonl"
    path.write_bytes(path.read_bytes().replace(b"train_loss", b"train_lost"))
    journal = Journal(journal.folder)
    assert recording.resume(SMALL, Run(journal, IdleUploader()), ranks.small_data()) is None
    journal.close()
    words = "warning: run: record 5 (metrics of epoch 1) is damaged: it is lost\n"
    assert capsys.readouterr() == ("", words)


# The training


@pytest.fixture
def training(monkeypatch, run):
    """A fit that takes notes, logs an epoch, and ends as it is told to; of a run that has begun."""
    result = SimpleNamespace(test={"test_loss": 0.5, "test_accuracy": 0.9}, diverged_in=None)
    noted = SimpleNamespace(result=result, error=None, given={}, environ={}, tried=[], results=[])

    def stand_in(config, **given):
        noted.given, noted.environ = {"config": config, **given}, dict(os.environ)
        given["logger"].log_metrics({"train_loss": 1.5}, step=1)
        if noted.error:
            raise noted.error
        return result

    def record_results(config, run, result, *, draw):
        noted.results.append((config, run, result, draw))
        run.tags({"results": "all"})

    monkeypatch.setattr(fit, "fit", stand_in)
    monkeypatch.setattr(results, "record_results", record_results)
    monkeypatch.setattr(export_trial, "ExportTrial", lambda *given: noted.tried.append(given) or "trial")
    monkeypatch.setenv(RUN_FOLDER, "that of another run")
    monkeypatch.setenv(RESUME_FROM, "its checkpoint")
    run.start("here", {}, {})
    return noted


def test_a_training_gets_its_data_logs_into_the_record_and_then_leaves_its_results(run, training):
    data, checkpoint = ranks.small_data(), Path("checkpoints/epoch-0002.ckpt")
    assert recording.fit_and_record(SMALL, run, data, checkpoint) == {"test_loss": 0.5, "test_accuracy": 0.9}
    logger = training.given.pop("logger")
    assert (type(logger), logger.run) == (EpochLogger, run)
    where = {"folder": run.folder.checkpoints, "resume_from": checkpoint}
    assert training.given == {"config": SMALL, "data": data, "callbacks": [], **where}
    assert training.results == [(SMALL, run, training.result, True)]
    assert [event["kind"] for event in events(run)] == ["start", "metrics", "tags"]
    (metrics,) = events(run, "metrics")
    assert (metrics["values"], metrics["step"]) == ({"train_loss": 1.5}, 1)
    assert run.is_open  # its end is that of whoever began it


@pytest.mark.parametrize("checkpoint", [None, Path("checkpoints/epoch-0002.ckpt")])
def test_the_other_processes_learn_the_folder_and_the_checkpoint_from_the_environment(
    monkeypatch, run, training, checkpoint
):
    monkeypatch.setenv("OTHERWISE", "as it was")
    recording.fit_and_record(SMALL, run, ranks.small_data(), checkpoint)
    told = {RUN_FOLDER: str(run.folder.path), RESUME_FROM: str(checkpoint) if checkpoint else ""}
    assert training.environ.items() >= {**told, "OTHERWISE": "as it was"}.items()
    assert os.environ.items() >= told.items()


def test_news_go_to_those_who_asked_for_them_the_trial_between(run, training):
    def report(*news):
        """An epoch's."""

    def on_steps(*news):
        """Those within an epoch."""

    data = ranks.small_data()
    config = RunConfig(network=OWN, model_name="flowers")
    recording.fit_and_record(config, run, data, None, report, on_steps)
    told, trial, steps = training.given["callbacks"]
    assert (type(told), told.report) == (EpochNews, report)
    assert trial == "trial"
    assert training.tried == [(config, data.source)]
    assert (type(steps), steps.on_steps) == (StepNews, on_steps)
    recording.fit_and_record(SMALL, run, data, None, report)
    assert [type(each) for each in training.given["callbacks"]] == [EpochNews]
    recording.fit_and_record(SMALL, run, data, None, on_steps=on_steps)
    assert [type(each) for each in training.given["callbacks"]] == [StepNews]


@pytest.mark.parametrize(
    ("network", "model_name", "checkpoint", "tried"),
    [
        (OWN, "flowers", None, True),
        (OWN, "", None, False),
        (OWN, "flowers", Path("epoch-0001.ckpt"), False),
        ("mlp", "flowers", None, False),
        ("mlp", "", Path("epoch-0001.ckpt"), False),
    ],
)
def test_the_export_is_tried_of_a_network_of_ones_own_that_gets_a_version_and_once(
    run, training, network, model_name, checkpoint, tried
):
    config = RunConfig(dataset="digits", network=network, model_name=model_name)
    recording.fit_and_record(config, run, ranks.small_data(), checkpoint)
    assert training.given["callbacks"] == (["trial"] if tried else [])


def wide_table(columns):
    """A table, its columns named at length."""
    names = [f"column {number} of it" for number in range(columns)]
    rows = np.arange(2.0 * columns).reshape(2, columns), [0, 1]
    return Dataset(rows, rows, ["no", "yes"], table=True, features=names)


def test_a_trial_gets_its_task_however_long_it_is(tmp_path, monkeypatch):
    """An argument of a command line holds 128 kB on Linux."""
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\necho $* > {tmp_path}/arguments\ncat > {tmp_path}/task\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    config, data = RunConfig(network=OWN), wide_table(20_000)
    trial = export_trial.ExportTrial(config, data)
    trial.on_train_start(SimpleNamespace(is_global_zero=True), None)
    assert trial._process.wait(timeout=DELIVERED_WITHIN_S) == 0
    assert (tmp_path / "arguments").read_text() == "-m pipeline.recording.export_trial\n"
    task = np.load(tmp_path / "task")
    assert RunConfig(**json.loads(task["config"].item())) == config
    assert DataSpec.from_json(task["spec"].item()) == data.spec
    assert np.array_equal(task["examples"], data.test.inputs)
    trial.teardown(None, None, "fit")


def test_a_network_is_tried_on_examples_of_its_own_data(tmp_path, capsys):
    """Categories as numbers in a table: a network has vectors of those that there are, and no others."""
    rows = np.array([[0.0], [7.0]] * 4), np.arange(8) % 2
    data = Dataset(rows, rows, table=True)
    trial = export_trial.ExportTrial(RunConfig(network="tests.own_training_code:Embedded"), data)
    np.savez(tmp_path / "task.npz", **trial._task)
    with (tmp_path / "task.npz").open("rb") as task:
        assert (export_trial.main(task), capsys.readouterr().out) == (0, "")


def test_a_trial_that_cannot_be_started_costs_a_warning_and_not_the_training(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no_python"))
    trial = export_trial.ExportTrial(RunConfig(network=OWN), wide_table(2))
    trial.on_train_start(SimpleNamespace(is_global_zero=True), None)
    trial.on_train_epoch_end(None, None)
    trial.teardown(None, None, "fit")
    told = capsys.readouterr().err
    assert told.startswith("warning: the network's export is not tried beside the first epoch ([Errno 2] ")
    assert told.count("\n") == 1


def test_a_training_that_diverged_and_stopped_has_failed_with_its_epoch_and_no_results(run, training):
    training.error = DivergedError(2, {2: {"train_loss": NAN, "val_loss": 1.0}})
    with pytest.raises(DivergedError) as caught:
        recording.fit_and_record(SMALL, run, ranks.small_data(), None)
    assert caught.value is training.error
    metrics, tags, end = events(run)[1:]
    assert metrics["kind"] == "metrics"
    assert (tags["kind"], tags["tags"]) == ("tags", {TAG: "2"})
    reason = (
        "diverged in epoch 2: train_loss is nan; try a lower learning_rate, or look at the data and the precision "
        "(on_divergence continue trains on all the same)"
    )
    assert (end["kind"], end["status"], end["tags"]) == ("end", "FAILED", {"failure_reason": reason})
    assert training.results == []


def test_a_training_that_diverged_and_went_on_says_in_which_epoch_before_its_results(run, training):
    training.result.diverged_in = 3
    assert recording.fit_and_record(SMALL, run, ranks.small_data(), None) == training.result.test
    assert [event["tags"] for event in events(run, "tags", "end")] == [{TAG: "3"}, {"results": "all"}]


@pytest.mark.parametrize("resume_from", ["", "checkpoints/epoch-0002.ckpt"])
@pytest.mark.parametrize(("diverges", "exit_code"), [(False, 0), (True, 1)])
def test_a_helper_trains_the_runs_config_from_the_same_checkpoint(
    monkeypatch, tmp_path, resume_from, diverges, exit_code
):
    asked = []

    def seen(*given, **how):
        asked.append((given, how))
        if diverges:
            raise DivergedError(1, {1: {"train_loss": NAN, "val_loss": 1.0}})

    monkeypatch.setattr(fit, "fit", seen)
    monkeypatch.setattr(recording, "leave_signals_to_the_first_process", lambda: asked.append("signals"))
    monkeypatch.setenv(RUN_FOLDER, str(tmp_path))
    monkeypatch.setenv(RESUME_FROM, resume_from)
    (tmp_path / "config.yaml").write_text(resuming.config_text(ranks.CONFIG))
    assert recording.train_as_helper() == exit_code
    how = {"folder": tmp_path / "checkpoints", "resume_from": Path(resume_from) if resume_from else None}
    assert asked == ["signals", ((ranks.CONFIG,), how)]


# Afterwards


@pytest.mark.parametrize("status", ["FINISHED", "KILLED"])
@pytest.mark.parametrize("own", [[], ["epoch=1-step=4.ckpt", "last.ckpt", "epoch-0001-v1.ckpt"]])
def test_only_the_checkpoints_of_a_finished_run_are_forgotten_and_not_what_a_callback_saved_beside_them(
    run, status, own
):
    ours = ["best.ckpt", "best.ckpt.partial", "epoch-0001.ckpt", "epoch-0002.ckpt", "epoch-0003.ckpt.partial"]
    run.folder.checkpoints.mkdir()
    for name in [*ours, *own]:
        (run.folder.checkpoints / name).touch()
    run.journal.append("start", run_key="k", params={}, tags={}, parent="")
    run.journal.append("end", status=status, tags={})
    recording.forget_checkpoints(run.folder)
    recording.forget_checkpoints(run.folder)
    left = own if status == "FINISHED" else [*ours, *own]
    assert sorted(path.name for path in run.folder.checkpoints.glob("*")) == sorted(left)
    assert run.folder.checkpoints.exists() == bool(left)
