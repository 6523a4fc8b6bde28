"""The folders of runs side by side: named, ordered, found, passed over; which is a copy of which."""

import errno
import os
import re
import shutil
from pathlib import Path

import pytest

from pipeline.tracking import folders, journal, lines
from pipeline.tracking.folders import all_folders, copies, find_folder, never_begun, new_folder, original_of
from pipeline.tracking.journal import Journal, RunFolder


@pytest.fixture(autouse=True)
def fast(monkeypatch):
    """What is on the disk is test_disk's; what is told once is told anew in each test."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    monkeypatch.setattr(folders, "_told", set())


@pytest.fixture
def clock(monkeypatch):
    """Milliseconds that a test sets."""
    now = [1_793_494_799_123]
    for module in (journal, folders):
        monkeypatch.setattr(module, "now_ms", lambda: now[0])
    monkeypatch.setattr(folders, "_last_name_ms", 0)
    return now


def begun(path, *kinds, **start):
    one = Journal(RunFolder(path))
    one.append("start", **start)
    for kind in kinds:
        one.append(kind)
    one.close()
    return one.folder


def names(folders):
    return [folder.path.name for folder in folders]


def test_a_name_is_the_time_in_utc_and_six_digits(tmp_path, clock):
    first, second = new_folder(tmp_path), new_folder(str(tmp_path))
    assert re.fullmatch(r"20261101-005959-123Z-[0-9a-f]{6}", first.path.name)
    assert re.fullmatch(r"20261101-005959-124Z-[0-9a-f]{6}", second.path.name)  # within one millisecond
    clock[0] += 5
    assert new_folder(tmp_path).path.name.startswith("20261101-005959-128Z-")
    clock[0] = 1_793_494_800_007
    assert new_folder(tmp_path).path.name.startswith("20261101-010000-007Z-")
    assert first.path.parent == tmp_path
    assert not first.path.exists()


def test_a_folder_below_where_one_stands_is_told_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert new_folder("runs").path.parent == tmp_path / "runs"
    begun(tmp_path / "runs" / "run")
    assert [folder.path for folder in all_folders("runs")] == [tmp_path / "runs" / "run"]


def test_runs_are_in_the_order_in_which_they_began_and_at_once_by_name(tmp_path, clock):
    for name, time in (("c", 5), ("a", 7), ("d", 6), ("b", 6)):
        clock[0] = time
        begun(tmp_path / name)
    assert names(all_folders(tmp_path)) == ["c", "b", "d", "a"]
    assert find_folder(tmp_path, "last").path.name == "a"


def test_where_there_are_no_runs_there_are_none(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    for place in (tmp_path, tmp_path / "file", tmp_path / "nowhere"):
        assert all_folders(place) == []
        assert never_begun(place) == []
    with pytest.raises(ValueError, match="no run 'last'") as caught:
        find_folder(tmp_path, "last")
    assert str(caught.value).endswith("MLflow run id (newest folders there: none)")


def test_when_a_run_began_is_read_of_its_first_line_alone(tmp_path, clock, monkeypatch):
    clock[0] = 5
    begun(tmp_path / "first", "tags")
    clock[0] = 3
    begun(tmp_path / "earlier", "tags")
    monkeypatch.setattr(RunFolder, "read", lambda self: pytest.fail("read whole"))
    assert names(all_folders(tmp_path)) == ["earlier", "first"]


@pytest.mark.parametrize("damage", ["first line", "journal gone", "journal empty", "all but the state"])
def test_a_run_whose_begin_is_damaged_keeps_its_place_as_far_as_anything_says_it(tmp_path, clock, damage):
    for name, time in (("a", 9), ("b", 4), ("c", 6)):
        clock[0] = time
        begun(tmp_path / name, "tags")
    path = tmp_path / "b" / "journal.jsonl"
    if damage == "first line":
        (tmp_path / "b" / "vital.jsonl").unlink()
        content = path.read_bytes()
        path.write_bytes(content.replace(b'"time":4', b'"time":8', 1))  # its checksum does not hold: 8 is not believed
    elif damage == "journal gone":
        path.unlink()
    elif damage == "journal empty":
        path.write_bytes(b"")
    else:
        path.write_bytes(b"")
        (tmp_path / "b" / "vital.jsonl").unlink()
        (tmp_path / "b" / "delivery.json").write_text("{}")
        os.utime(tmp_path / "b", ns=(0, 7_000_000))
    found = names(all_folders(tmp_path))
    assert found == (["c", "b", "a"] if damage == "all but the state" else ["b", "c", "a"])
    assert never_begun(tmp_path) == []


@pytest.mark.parametrize("left", ["delivery.json", "config.yaml", "checkpoints"])
def test_a_folder_with_what_only_a_run_leaves_is_a_run_and_one_without_a_lock_is_none(tmp_path, left):
    Journal(RunFolder(tmp_path / "run")).close()
    assert names(never_begun(tmp_path)) == ["run"]
    (tmp_path / "run" / left).mkdir()
    assert (names(all_folders(tmp_path)), never_begun(tmp_path)) == (["run"], [])
    (tmp_path / "run" / "lock").unlink()
    assert (all_folders(tmp_path), names(never_begun(tmp_path))) == ([], ["run"])
    (tmp_path / "run" / "journal.jsonl").unlink()
    assert never_begun(tmp_path) == []  # any other folder: not the pipeline's to remove


def refuse(monkeypatch, names, error):
    """Let these folders be unreadable."""
    real = folders._began

    def guarded(path):
        if path.name in names:
            raise error
        return real(path)

    monkeypatch.setattr(folders, "_began", guarded)


def test_runs_that_one_may_not_read_are_passed_over_and_told_once_by_name(tmp_path, monkeypatch, capsys):
    for name in "abcde":
        begun(tmp_path / name)
    refuse(monkeypatch, "bd", PermissionError(13, "Permission denied"))
    for _ in range(2):
        assert names(all_folders(tmp_path)) == ["a", "c", "e"]
    told = f"2 of {tmp_path} passed over, which this user may not read: b, d\n"
    assert capsys.readouterr() == ("", told)
    refuse(monkeypatch, "abcd", PermissionError(13, "Permission denied"))
    assert names(all_folders(tmp_path)) == ["e"]
    assert never_begun(tmp_path) == []
    told = f"4 of {tmp_path} passed over, which this user may not read: a, b, c, ...\n"
    assert capsys.readouterr().err == told


def test_three_that_one_may_not_read_are_all_named(tmp_path, monkeypatch, capsys):
    for name in "abc":
        begun(tmp_path / name)
    refuse(monkeypatch, "abc", PermissionError(13, "Permission denied"))
    assert all_folders(tmp_path) == []
    assert capsys.readouterr().err.endswith("may not read: a, b, c\n")


def test_a_run_on_a_broken_disk_is_passed_over_and_told(tmp_path, monkeypatch, capsys):
    for name in "ab":
        begun(tmp_path / name)
    refuse(monkeypatch, "a", OSError(5, "Input/output error"))
    assert names(all_folders(tmp_path)) == ["b"]
    assert capsys.readouterr() == ("", f"{tmp_path / 'a'} is passed over: Input/output error\n")


def test_a_folder_of_runs_that_cannot_be_listed_is_told(tmp_path, monkeypatch, capsys):
    def refused(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", refused)
    assert all_folders(tmp_path) == []
    assert capsys.readouterr() == ("", f"{tmp_path} cannot be read (Permission denied): its runs are passed over\n")


def test_a_run_is_found_by_every_name_it_has(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in "abcdefg":
        begun(tmp_path / "runs" / name, mlflow_run_id="given" if name == "b" else None)
    RunFolder(tmp_path / "runs" / "c").write_state({"run_id": "state"})
    for run, name in (("given", "b"), ("state", "c"), ("d", "d"), ("runs/e", "e"), (str(tmp_path / "runs/f"), "f")):
        assert find_folder("runs", run).path == tmp_path / "runs" / name
    for run in ("", "unknown", "runs"):
        with pytest.raises(ValueError, match="no run") as caught:
            find_folder("runs", run)
        assert str(caught.value) == (
            f"no run {run!r} in runs; give `last`, a run folder or an MLflow run id "
            "(newest folders there: c, d, e, f, g)"
        )


@pytest.mark.parametrize("left", ["journal.jsonl", "vital.jsonl"])
def test_a_run_elsewhere_is_found_by_its_path_by_either_file(tmp_path, left):
    folder = begun(tmp_path / "backup" / "run")
    for path in folder.path.iterdir():
        if path.name != left:
            path.unlink()
    assert find_folder(tmp_path / "runs", str(folder.path)).path == folder.path


def test_last_is_ones_own_and_no_copy_as_long_as_there_is_such_a_one(tmp_path, clock, monkeypatch):
    for time, name in enumerate(("own", "foreign")):
        clock[0] = time
        begun(tmp_path / name, run_key=name)
    shutil.copytree(tmp_path / "own", tmp_path / "z copy")
    writable = {"own", "z copy"}
    monkeypatch.setattr(os, "access", lambda path, mode: mode == os.W_OK and Path(path).name in writable)
    assert find_folder(tmp_path, "last").path.name == "own"
    writable.remove("own")
    assert find_folder(tmp_path, "last").path.name == "z copy"
    writable.clear()
    assert find_folder(tmp_path, "last").path.name == "foreign"


def test_a_copy_belongs_to_the_folder_in_which_the_run_began_whichever_has_more(tmp_path):
    original = begun(tmp_path / "run", run_key="k")
    shutil.copytree(original.path, tmp_path / "copy")
    Journal(RunFolder(tmp_path / "copy")).append("tags")
    other = begun(tmp_path / "other", run_key="another")
    assert original_of(RunFolder(tmp_path / "copy")).path == original.path
    assert original_of(original) is None
    assert original_of(other) is None
    assert original_of(RunFolder(tmp_path / "not there")) is None


def test_of_copies_without_a_home_it_is_the_fullest_and_of_equals_the_one_of_the_shorter_name(tmp_path):
    original = begun(tmp_path / "run", run_key="k")
    for name in ("copy 1", "cop", "copy"):
        shutil.copytree(original.path, tmp_path / name)
    shutil.rmtree(original.path)
    folders = [RunFolder(tmp_path / name) for name in ("copy 1", "cop", "copy")]
    assert {path.name: folder.path.name for path, folder in copies(folders).items()} == {"copy": "cop", "copy 1": "cop"}
    Journal(folders[0]).append("tags")
    assert {folder.path.name for folder in copies(folders).values()} == {"copy 1"}


def test_a_record_that_was_sent_as_a_new_run_is_no_copy_any_more(tmp_path):
    original = begun(tmp_path / "run", run_key="k")
    copy = RunFolder(shutil.copytree(original.path, tmp_path / "copy"))
    assert original_of(copy) is not None
    copy.write_state({"elsewhere": {"run_key": "k2", "keep_experiment_id": False}})
    assert original_of(copy) is None
    copy.write_state({"elsewhere": {"experiment_name": "other"}})
    assert original_of(copy).path == original.path


def test_runs_without_a_key_are_no_copies_and_one_that_cannot_be_read_stops_nobody(tmp_path, monkeypatch):
    for name in "ab":
        begun(tmp_path / name)
    original = begun(tmp_path / "run", run_key="k")
    copy = RunFolder(shutil.copytree(original.path, tmp_path / "copy"))
    real = RunFolder.started

    def started(self):
        if self.path.name == "a":
            raise PermissionError(13, "Permission denied")
        return real(self)

    monkeypatch.setattr(RunFolder, "started", started)
    assert list(copies(all_folders(tmp_path))) == [copy.path]


def test_a_copy_is_refused_with_what_to_do(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    original, copy = RunFolder(tmp_path / "runs" / "run"), RunFolder(tmp_path / "runs" / "a copy")
    assert folders.refusal_of_copy(copy, original) == (
        "a copy is a copy of run beside it: one run, which only one folder can go on with and deliver. Remove it, or "
        "make it a run of its own: python -m pipeline sync 'a copy' --as-new"
    )


def test_a_run_that_never_began_is_removed_with_all_that_lies_in_it(tmp_path):
    folder = RunFolder(tmp_path / "run")
    Journal(folder).close()
    folders.remove(folder)
    assert list(tmp_path.iterdir()) == []
    folders.remove(folder)  # by another before


def test_values_are_gathered_by_name_and_step_and_the_last_stands():
    events = [
        {"kind": "metrics", "values": {"a": 1.0, "b": 2.0}, "step": 1},
        {"kind": "tags", "values": {"a": 9.0}, "step": 1},
        {"kind": "metrics", "values": {"a": 3.0}, "step": 2},
        {"kind": "metrics", "values": {"a": 4.0}, "step": 2},
    ]
    assert folders.values_of(events) == {"a": {1: 1.0, 2: 4.0}, "b": {1: 2.0}}


def test_the_digest_is_of_what_was_trained_on():
    inputs = [{"dataset": {"digest": "d1"}}, {"dataset": {"digest": "d2"}}]
    assert folders.data_digest([{"kind": "start"}, {"kind": "dataset", "inputs": inputs}]) == "d1"
    assert folders.data_digest([{"kind": "start"}]) is None


def test_the_first_line_is_believed_by_its_checksum_only(tmp_path, clock):
    clock[0] = 50
    begun(tmp_path / "b")
    (tmp_path / "a").mkdir()
    event = {"kind": "start", "time": 99, "n": 0}
    (tmp_path / "a" / "vital.jsonl").write_bytes(lines.line_of(event))
    assert names(all_folders(tmp_path)) == ["b", "a"]


@pytest.mark.parametrize("code", [errno.EACCES, errno.ENAMETOOLONG, errno.ELOOP])
def test_a_path_that_cannot_be_looked_at_is_one_line_that_says_why(tmp_path, monkeypatch, code):
    begun(tmp_path / "run")
    refused = OSError(code, os.strerror(code))
    open_or_stat = {name: getattr(Path, name) for name in ("open", "stat")}

    def guarded(name):
        def called(path, *words, **more):
            if "alice" in path.parts:
                raise refused
            return open_or_stat[name](path, *words, **more)

        return called

    for name in open_or_stat:
        monkeypatch.setattr(Path, name, guarded(name))
    with pytest.raises(ValueError, match="no run") as caught:
        find_folder(tmp_path, "/home/alice/runs/X")
    assert str(caught.value) == (
        f"no run '/home/alice/runs/X' in {tmp_path} ({os.strerror(code)}); give `last`, a run folder or an MLflow run "
        "id (newest folders there: run)"
    )


def test_a_word_of_any_length_is_one_short_line(tmp_path):
    with pytest.raises(ValueError, match="no run 'xxx") as caught:
        find_folder(tmp_path, "x" * 100_000)
    assert len(str(caught.value)) < 300
