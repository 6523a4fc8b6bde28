import errno
import os
import shutil
import time

import pytest

from pipeline.tracking import folders, lines
from pipeline.tracking.folders import all_folders, copies, find_folder, never_begun, new_folder, values_of
from pipeline.tracking.journal import Journal, RunFolder, RunIsAliveError


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


def test_a_value_that_stands_at_its_step_is_not_recorded_by_a_process_after(folder):
    journal = Journal(folder)
    journal.metrics({"loss": 1.0}, step=1)
    journal.close()
    Journal(folder).metrics({"loss": 1.0, "accuracy": 0.5}, step=1)
    assert [event["values"] for event in folder.events()] == [{"loss": 1.0}, {"accuracy": 0.5}]


def damage(folder, line, change):
    """Change one line (from 0, with its line break) of the journal."""
    path = folder.path / "journal.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    lines[line] = change(lines[line])
    path.write_bytes(b"".join(lines))


def kinds(folder):
    return [event["kind"] for event in folder.events()]


@pytest.mark.parametrize("cut", [2, 5, 30])
def test_a_torn_last_line_is_cut_off_and_the_journal_goes_on(folder, cut):
    journal_of(folder, "one", "two").close()
    damage(folder, 1, lambda line: line[:-cut])
    assert kinds(folder) == ["one"]
    journal_of(folder, "three").close()
    assert kinds(folder) == ["one", "three"]
    assert (folder.path / "journal.jsonl").read_bytes().count(b"\n") == 2


@pytest.mark.parametrize("tail", [b"", b"\x0b"])
def test_a_last_line_that_lacks_only_its_line_break_is_whole(folder, tail):
    journal_of(folder, "one", "two").close()
    damage(folder, 1, lambda line: line[:-1] + tail)
    assert kinds(folder) == ["one", "two"]
    journal_of(folder, "three").close()
    assert kinds(folder) == ["one", "two", "three"]


@pytest.mark.parametrize(
    "change",
    [
        lambda line: line.replace(b"two", b"twO"),
        lambda line: b"0" * 8 + line[8:],
        lambda line: bytes(len(line) - 1) + b"\n",
        lambda line: line[:20] + b"\n" + line[21:],
        lambda line: line[:3] + b"\n" + line[4:],
        lambda line: b"",
        lambda line: line[:10],
    ],
    ids=["bit", "checksum", "zeros", "torn in two", "torn in its checksum", "missing", "run together"],
)
def test_a_damaged_line_costs_its_own_record_and_shifts_no_other(folder, change):
    journal_of(folder, "one", "two", "three").close()
    damage(folder, 1, change)
    before = (folder.path / "journal.jsonl").read_bytes()
    events = folder.events()
    assert [event["n"] for event in events] == [0, 1, 2]
    assert [event["kind"] for event in events] == ["one", "lost", "three"]
    journal_of(folder, "four").close()
    assert kinds(folder) == ["one", "lost", "three", "four"]
    assert (folder.path / "journal.jsonl").read_bytes().startswith(before)


def test_two_lines_whose_line_break_was_damaged_are_both_read(folder):
    journal_of(folder, "one", "two", "three").close()
    damage(folder, 0, lambda line: line[:-1] + b"\x0b")
    assert kinds(folder) == ["one", "two", "three"]


def test_a_line_that_has_run_together_with_the_rest_of_another_is_read(folder):
    journal_of(folder, "one", "two", "three").close()
    damage(folder, 0, lambda line: line[:-1])
    damage(folder, 0, lambda line: line.replace(b'"kind":"two"', b"").replace(b"} ", b"}"))
    path = folder.path / "journal.jsonl"
    content = path.read_bytes()
    path.write_bytes(content[: content.index(b"}") + 1] + content[content.index(b"}") + 15 :])
    assert kinds(folder) == ["one", "lost", "three"]


def test_a_journal_without_numbers_from_an_older_version_is_read_with_its_damage(folder):
    journal_of(folder, "one", "two", "three").close()
    content = b""
    for event in folder.events():
        del event["n"]
        content += lines.line_of(event)
    (folder.path / "journal.jsonl").write_bytes(content.replace(b"two", b"twO"))
    journal_of(folder, "four").close()
    assert kinds(folder) == ["one", "lost", "three", "four"]


def test_begin_and_end_of_a_run_survive_the_loss_of_their_lines_or_of_the_whole_journal(folder):
    journal_of(folder, "start", "metric", "end").close()
    start, _, end = folder.events()
    damage(folder, 0, lambda line: line.replace(b"start", b"stArt"))
    damage(folder, 2, lambda line: line[:9])
    assert (folder.started(), folder.ended()) == (start, end)
    assert kinds(folder) == ["start", "metric", "end"]
    (folder.path / "journal.jsonl").unlink()
    assert kinds(folder) == ["start", "lost", "end"]
    assert [each.path for each in all_folders(folder.path.parent)] == [folder.path]
    journal_of(folder, "resume").close()
    (folder.path / "vital.jsonl").unlink()
    assert kinds(folder) == ["start", "lost", "end", "resume"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b'{"run_id": "abc", "delivered": ',
        b"\xff\xfe",
        b'{"run_id": "abc", "delivered": "3", "refused": 1, "versions": [], "trouble": "x"}',
        b'{"run_id": 5, "delivered": 3}',
    ],
)
def test_a_delivery_state_of_any_other_shape_is_none_and_said_to_be_damaged(folder, content):
    journal_of(folder, "start").close()
    (folder.path / "delivery.json").write_bytes(content)
    state, is_whole = folder.checked_state()
    assert state in ({}, {"run_id": "abc"})
    assert not is_whole


def test_a_flipped_digit_in_the_delivery_state_does_not_make_records_delivered(folder):
    journal_of(folder, "start").close()
    folder.write_state({"run_id": "abc", "delivered": 12})
    assert folder.checked_state() == ({"run_id": "abc", "delivered": 12}, True)
    path = folder.path / "delivery.json"
    path.write_text(path.read_text().replace("12", "52"))
    assert folder.checked_state() == ({}, False)


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


def test_new_folders_never_collide_and_sort_as_they_were_made(tmp_path):
    names = [new_folder(tmp_path).path.name for _ in range(100)]
    assert len(set(names)) == 100
    assert names == sorted(names)


def test_names_are_in_utc_so_that_no_time_zone_or_summer_time_turns_them_round(tmp_path, monkeypatch):
    monkeypatch.setattr(folders, "_last_name_ms", 0)
    monkeypatch.setattr(folders, "now_ms", lambda: 1793494799123)
    for zone in ("UTC", "America/New_York", "Asia/Tokyo"):
        monkeypatch.setenv("TZ", zone)
        time.tzset()
        assert new_folder(tmp_path).path.name.startswith("20261101-005959-12")
    monkeypatch.undo()
    time.tzset()


def test_last_is_the_run_that_began_last_whatever_its_folder_is_called(tmp_path):
    first, second = RunFolder(tmp_path / "20261025-025900-b"), RunFolder(tmp_path / "20261025-020100-a")
    for folder in (first, second):
        journal_of(folder, "start").close()
        time.sleep(0.002)  # the next millisecond
    assert [folder.path for folder in all_folders(tmp_path)] == [first.path, second.path]
    assert find_folder(tmp_path, "last").path == second.path


def test_a_run_folder_is_for_its_owner_and_its_files_follow_the_umask(tmp_path):
    before = os.umask(0o002)
    try:
        folder = new_folder(tmp_path / "runs")
        journal_of(folder, "start").close()
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in folder.path.iterdir()}
    assert folder.path.stat().st_mode & 0o777 == 0o700
    assert folder.path.parent.stat().st_mode & 0o777 == 0o775
    assert modes == {"journal.jsonl": 0o664, "vital.jsonl": 0o664, "lock": 0o664}


def test_a_copy_is_told_from_its_original_even_when_it_is_renamed(tmp_path):
    folder = new_folder(tmp_path)
    journal = Journal(folder)
    journal.append("start", run_key="k", tags={})
    journal.close()
    copy = RunFolder(tmp_path / "0-copy")
    shutil.copytree(folder.path, copy.path)
    assert {path: original.path for path, original in copies(all_folders(tmp_path)).items()} == {copy.path: folder.path}
    assert find_folder(tmp_path, "last").path == folder.path
    folder.path.rename(tmp_path / "1-moved")
    Journal(RunFolder(tmp_path / "1-moved")).append("tags", tags={})
    assert [each.path.name for each in copies(all_folders(tmp_path)).values()] == ["1-moved"]
    shutil.rmtree(tmp_path / "1-moved")
    assert copies(all_folders(tmp_path)) == {}


def test_a_folder_whose_run_never_began_is_no_run(tmp_path):
    never, begun = RunFolder(tmp_path / "never"), RunFolder(tmp_path / "begun")
    journal_of(begun, "start").close()
    living = journal_of(never)
    assert [folder.path for folder in all_folders(tmp_path)] == [begun.path]
    assert never_begun(tmp_path) == []
    living.close()
    assert [folder.path for folder in never_begun(tmp_path)] == [never.path]


def test_a_folder_whose_journal_was_emptied_is_no_folder_that_never_began(tmp_path):
    folder = RunFolder(tmp_path / "run")
    journal_of(folder, "start").close()
    folder.write_state({"run_id": "abc", "delivered": 1})
    (folder.path / "journal.jsonl").write_bytes(b"")
    (folder.path / "vital.jsonl").unlink()
    assert never_begun(tmp_path) == []
    assert [each.path for each in all_folders(tmp_path)] == [folder.path]
