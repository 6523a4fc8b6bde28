"""One folder is one run in MLflow, running while it runs, though a full disk lets nobody write down which it is."""

import errno
import itertools
from types import SimpleNamespace

import pytest

from pipeline.delivery.delivery import Delivery
from pipeline.delivery.opening import RUN_KEY
from pipeline.delivery.writer import Writer
from pipeline.tracking.journal import Journal, RunFolder
from tests.recorded import append


class Page(list):
    token = None


class Store:
    """As much of an MLflow client as a run without files needs; its own store."""

    def __init__(self):
        self.runs, self.experiments, self.numbers = {}, {}, itertools.count()

    def get_experiment_by_name(self, name):
        return self.experiments.get(name)

    def get_experiment(self, experiment_id):
        return next(each for each in self.experiments.values() if each.experiment_id == experiment_id)

    def create_experiment(self, name):
        number = str(next(self.numbers))
        self.experiments[name] = SimpleNamespace(experiment_id=number, tags={}, lifecycle_stage="active")
        return number

    def set_experiment_tag(self, experiment_id, name, value):
        self.get_experiment(experiment_id).tags[name] = value

    def create_run(self, experiment_id, start_time, tags, run_name):
        run_id = f"run {next(self.numbers)}"
        info = {"run_id": run_id, "experiment_id": experiment_id, "lifecycle_stage": "active", "run_name": run_name}
        info["artifact_uri"] = f"mlflow-artifacts:/{run_id}"
        data = SimpleNamespace(params={}, metrics={}, tags=dict(tags))
        self.runs[run_id] = SimpleNamespace(info=SimpleNamespace(**info, status="RUNNING"), data=data)
        return self.runs[run_id]

    def get_run(self, run_id):
        return self.runs[run_id]

    def delete_run(self, run_id):
        del self.runs[run_id]

    def search_runs(self, experiment_ids, *words, **more):
        return Page(run for run in self.runs.values() if run.info.experiment_id in experiment_ids)

    def log_batch(self, run_id, metrics=(), params=(), tags=()):
        data = self.runs[run_id].data
        data.params |= {each.key: each.value for each in params}
        data.metrics |= {(each.key, each.step): each.value for each in metrics}
        data.tags |= {each.key: each.value for each in tags}

    def update_run(self, run_id, status):
        self.runs[run_id].info.status = status

    def set_terminated(self, run_id, status, end_time):
        self.update_run(run_id, status)


@pytest.fixture
def folder(tmp_path):
    journal = Journal(RunFolder(tmp_path / "runs" / "run"))
    journal.append(
        "start",
        run_key="k",
        mlflow_run_id=None,
        experiment_id=None,
        experiment_name="one run",
        params={"epochs": 2},
        parent="",
        tags={"mlflow.runName": "a run"},
    )
    journal.metrics({"train_loss": 0.5}, 1)
    journal.close()
    return journal.folder


def test_on_a_full_disk_every_uploader_finds_the_run_that_the_one_before_has_made(folder, monkeypatch):
    def full(self, state):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(RunFolder, "write_state", full)
    store = Store()
    Delivery(folder, store).deliver()
    ((run_id, run),) = store.runs.items()
    append(folder, "end", status="FAILED", tags={"failure_reason": "no space left"})
    Delivery(folder, store).deliver()
    assert (list(store.runs), run.info.status) == ([run_id], "FAILED")
    append(folder, "resume", params={}, tags={"resumed_after_epoch": "1"})
    Delivery(folder, store).deliver()
    assert (list(store.runs), run.info.status) == ([run_id], "RUNNING")
    append(folder, "metrics", values={"train_loss": 0.25}, step=2)
    append(folder, "end", status="FINISHED", tags={})
    Delivery(folder, store).deliver()
    assert (list(store.runs), run.info.status) == ([run_id], "FINISHED")
    assert run.data.metrics == {("train_loss", 1): 0.5, ("train_loss", 2): 0.25}


def test_a_double_that_an_answer_came_too_late_for_is_gone_when_the_run_ends(folder):
    store = Store()
    first, second = (Writer(folder, store) for _ in range(2))
    first._start(folder.events()[0], (), True)
    event = folder.events()[0]
    second.run_id = second._opening.create(
        event, {RUN_KEY: event["run_key"]}
    ).info.run_id  # the search came before the other's answer
    assert len(store.runs) == 2
    append(folder, "end", status="FINISHED", tags={})
    Delivery(folder, store).deliver()
    assert list(store.runs) == [first.run_id]
    assert store.runs[first.run_id].info.status == "FINISHED"


def test_a_resumed_run_is_running_again_and_ends_with_the_time_of_its_end(folder):
    store = Store()
    Delivery(folder, store).deliver()
    append(folder, "end", status="KILLED", tags={})
    Delivery(folder, store).deliver()
    append(folder, "resume", params={"epochs": 3}, tags={"resumed.epochs": "3"})
    Delivery(folder, store).deliver()
    (run,) = store.runs.values()
    assert run.info.status == "RUNNING"
    assert run.data.tags["resumed.epochs"] == "3"
    assert run.data.params == {"epochs": "2"}


def test_events_behind_a_journal_that_was_cut_are_delivered_though_as_many_were_before(folder):
    store = Store()
    append(folder, "tags", tags={"cut": "off"})
    Delivery(folder, store).deliver()
    path = folder.path / "journal.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:2]))
    append(folder, "tags", tags={"written": "behind"})
    Delivery(folder, store).deliver()
    (run,) = store.runs.values()
    assert run.data.tags["written"] == "behind"
