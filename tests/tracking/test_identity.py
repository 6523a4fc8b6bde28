"""Which folder a logger's run lies in: chosen once, known to all ranks and to the requeued job, nobody else's."""

import datetime
import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from pipeline.tracking import identity
from pipeline.tracking.journal import Journal, RunFolder


@pytest.fixture(autouse=True)
def no_job(monkeypatch):
    """No Slurm, nothing told by another process, a script that is always the same."""
    for name in (identity.FOLDERS, "SLURM_JOB_ID", "SLURM_RESTART_COUNT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(identity, "script_tags", lambda: {"mlflow.source.name": "train.py"})


def begun(path, tags=None, experiment="flowers", status=None, **start):
    journal = Journal(RunFolder(path))
    event = {"run_key": path.name, "params": {}, "experiment_name": experiment, "parent": "", **start}
    journal.append("start", **event, **({} if tags is None else {"tags": tags}))
    if status:
        journal.append("end", status=status, tags={})
    journal.close()
    return path


def test_every_logger_of_a_process_has_a_number_of_its_own():
    first = identity.next_number()
    assert [identity.next_number(), identity.next_number()] == [first + 1, first + 2]


def test_the_folders_of_all_loggers_are_told_to_the_processes_that_come_after(tmp_path):
    first = identity.chosen(tmp_path, "flowers", "", 0)
    second = identity.chosen(tmp_path, "flowers", "", 1)
    assert json.loads(os.environ[identity.FOLDERS]) == {"0": str(first.path), "1": str(second.path)}
    assert identity.learned(0).path == first.path
    assert identity.learned(1).path == second.path
    assert identity.learned(2) is None


def test_the_first_logger_forgets_what_an_earlier_process_told(tmp_path, monkeypatch):
    monkeypatch.setenv(identity.FOLDERS, json.dumps({"1": "/old"}))
    folder = identity.chosen(tmp_path, "flowers", "", 0)
    assert json.loads(os.environ[identity.FOLDERS]) == {"0": str(folder.path)}


def test_what_is_told_stays_small_enough_for_a_process_to_be_started_with_it(tmp_path, monkeypatch):
    monkeypatch.setattr(identity, "new_folder", lambda save_dir: RunFolder(save_dir / ("x" * 100)))
    longest = 0
    for number in range(2000):
        identity.chosen(Path("/"), "flowers", "", number)
        longest = max(longest, len(os.environ[identity.FOLDERS]))
    assert 1 << 15 < longest <= 1 << 16  # the system takes 128 KiB in one variable
    assert identity.learned(1999) is not None
    assert identity.learned(0) is None


@pytest.mark.parametrize("text", ["", "{", "no JSON"])
def test_what_is_told_in_no_readable_way_is_nothing(monkeypatch, text):
    monkeypatch.setenv(identity.FOLDERS, text)
    assert identity.learned(0) is None


def test_a_run_to_go_on_with_is_the_one_that_is_named(tmp_path):
    begun(tmp_path / "a")
    begun(tmp_path / "b")
    assert identity.chosen(tmp_path, "flowers", "a", 0).path == tmp_path / "a"
    with pytest.raises(ValueError, match="no run 'c'"):
        identity.chosen(tmp_path, "flowers", "c", 0)


def test_only_a_job_has_the_tag_of_one(monkeypatch):
    assert identity.job_tags(3) == {}
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    assert identity.job_tags(3) == {"slurm.job": "77.3"}


OURS = {"slurm.job": "77.0", "mlflow.source.name": "train.py"}


@pytest.mark.parametrize(
    ("tags", "experiment", "status", "found"),
    [
        (OURS, "flowers", None, True),
        ({**OURS, "team": "botany"}, "flowers", "FAILED", True),
        (OURS, "flowers", "FINISHED", False),
        (OURS, "trees", None, False),
        ({**OURS, "slurm.job": "77.1"}, "flowers", None, False),
        ({**OURS, "mlflow.source.name": "other.py"}, "flowers", None, False),
        (None, "flowers", None, False),
    ],
)
def test_a_requeued_job_finds_the_run_that_it_had(tmp_path, monkeypatch, tags, experiment, status, found):
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    before = begun(tmp_path / "before", tags, experiment, status)
    assert identity.chosen(tmp_path, "flowers", "", 0).path != before
    monkeypatch.setenv("SLURM_RESTART_COUNT", "0")
    assert identity.chosen(tmp_path, "flowers", "", 0).path != before
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert (identity.chosen(tmp_path, "flowers", "", 0).path == before) is found


def test_without_a_job_nothing_is_gone_on_with(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    before = begun(tmp_path / "before", {"mlflow.source.name": "train.py"})
    assert identity.chosen(tmp_path, "flowers", "", 0).path != before


class Store:
    """The key-value store of a process group."""

    def __init__(self, missing=False):
        self.values, self.waited, self.missing = {}, [], missing

    def set(self, key, value):
        self.values[key] = value.encode()

    def wait(self, keys, patience):
        self.waited.append((keys, patience))
        if self.missing:
            raise RuntimeError("timeout")

    def get(self, key):
        return self.values[key]


def test_the_other_ranks_learn_the_folder_from_the_groups_store(tmp_path, monkeypatch):
    store = Store()
    monkeypatch.setattr(identity, "_store", lambda: store)
    identity.publish(2, RunFolder(tmp_path / "run"))
    assert store.values == {"pipeline/logger/2": str(tmp_path / "run").encode()}
    assert identity.learned(2).path == tmp_path / "run"
    assert store.waited == [(["pipeline/logger/2"], datetime.timedelta(seconds=60))]


def test_where_the_first_rank_tells_nothing_what_the_environment_says_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(identity, "_store", lambda: Store(missing=True))
    assert identity.learned(0) is None
    monkeypatch.setenv(identity.FOLDERS, json.dumps({"0": str(tmp_path)}))
    assert identity.learned(0).path == tmp_path


@pytest.mark.parametrize(
    ("available", "initialized", "there"), [(True, True, True), (True, False, False), (False, True, False)]
)
def test_only_a_group_that_is_there_has_a_store(monkeypatch, available, initialized, there):
    group = SimpleNamespace(_get_default_store=lambda: "the store")
    monkeypatch.setattr(torch.distributed, "is_available", lambda: available)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: initialized)
    monkeypatch.setattr(torch.distributed, "distributed_c10d", group)
    assert identity._store() == ("the store" if there else None)


def test_alone_nothing_is_published(tmp_path, monkeypatch):
    monkeypatch.setattr(identity, "_store", lambda: None)
    identity.publish(0, RunFolder(tmp_path))
    assert identity.learned(0) is None
