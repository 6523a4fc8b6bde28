import errno
import os

import pytest

from pipeline.record import (
    Journal,
    RunFolder,
    RunIsAliveError,
    all_folders,
    find_folder,
    never_begun,
    new_folder,
    values_of,
)


@pytest.fixture
def folder(tmp_path):
    return RunFolder(tmp_path / "run")


def journal_of(folder, *kinds):
    journal = Journal(folder)
    for kind in kinds:
        journal.append(kind)
    return journal


def test_events_come_back_in_order_with_their_content(folder):
    journal = Journal(folder)
    journal.append("start", run_key="k", params={"epochs": 3})
    journal.metrics({"loss": 0.1 + 0.2, "bad": float("nan")}, step=1)
    start, metrics = folder.events()
    assert (start["kind"], start["params"]) == ("start", {"epochs": 3})
    assert metrics["values"]["loss"] == 0.1 + 0.2
    assert metrics["values"]["bad"] != metrics["values"]["bad"]
    assert values_of([{**metrics, "values": {"loss": 1.0}}]) == {"loss": {1: 1.0}}


def test_a_value_stands_once_per_step_however_often_it_is_recorded(folder):
    journal = Journal(folder)
    journal.metrics({"loss": 1.0}, step=1)
    journal.metrics({"loss": 1.0, "accuracy": 0.5}, step=1)
    journal.close()
    Journal(folder).metrics({"loss": 1.0}, step=1)
    assert [event["values"] for event in folder.events()] == [{"loss": 1.0}, {"accuracy": 0.5}]


@pytest.mark.parametrize("cut", [1, 5, 30])
def test_a_torn_last_line_is_cut_off_and_the_journal_goes_on(folder, cut):
    journal_of(folder, "one", "two").close()
    path = folder.path / "journal.jsonl"
    path.write_bytes(path.read_bytes()[:-cut])
    assert [event["kind"] for event in folder.events()] == ["one"]
    journal_of(folder, "three").close()
    assert [event["kind"] for event in folder.events()] == ["one", "three"]


def test_a_damaged_line_ends_what_is_believed(folder):
    journal_of(folder, "one", "two", "three").close()
    path = folder.path / "journal.jsonl"
    path.write_bytes(path.read_bytes().replace(b"two", b"TWO"))
    assert [event["kind"] for event in folder.events()] == ["one"]


def test_a_disk_that_refuses_leaves_the_journal_as_it_was(folder, monkeypatch):
    journal = journal_of(folder, "one")
    real = os.fsync

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        journal.append("two")
    monkeypatch.setattr(os, "fsync", real)
    journal.append("three")
    assert [event["kind"] for event in folder.events()] == ["one", "three"]


def test_one_process_writes_at_a_time_and_its_life_can_be_seen(folder):
    journal = journal_of(folder, "start")
    assert folder.is_alive()
    with pytest.raises(RunIsAliveError, match="is still running in another process"):
        Journal(folder)
    journal.close()
    assert not folder.is_alive()


def test_a_resumed_run_is_open_again(folder):
    journal = journal_of(folder, "start", "end")
    assert folder.ended()["kind"] == "end"
    journal.append("resume")
    assert folder.ended() is None


def test_runs_are_found_by_last_path_name_or_mlflow_id(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first, second = RunFolder(tmp_path / "runs/20260101-a"), RunFolder(tmp_path / "runs/20260102-b")
    for folder in (first, second):
        journal_of(folder, "start").close()
    first.write_state({"run_id": "abc"})
    assert [folder.path for folder in all_folders("runs")] == [first.path, second.path]
    assert find_folder("runs", "last").path == second.path
    assert find_folder("runs", "runs/20260101-a").path == first.path
    assert find_folder("runs", "20260101-a").path == first.path
    assert find_folder("runs", "abc").path == first.path
    with pytest.raises(ValueError, match=r"no run 'xyz' in runs; give `last`, a run folder or an MLflow run id"):
        find_folder("runs", "xyz")


def test_new_folders_never_collide(tmp_path):
    assert len({new_folder(tmp_path).path for _ in range(100)}) == 100


def test_a_folder_whose_run_never_began_is_no_run(tmp_path):
    never, begun = RunFolder(tmp_path / "never"), RunFolder(tmp_path / "begun")
    journal_of(begun, "start").close()
    living = journal_of(never)
    assert [folder.path for folder in all_folders(tmp_path)] == [begun.path]
    assert never_begun(tmp_path) == []
    living.close()
    assert [folder.path for folder in never_begun(tmp_path)] == [never.path]
