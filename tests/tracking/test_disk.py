"""What the disk does to a run's record: synced before it counts, taken whole or not at all, killed at any byte."""

import errno
import json
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.tracking import journal as journal_module
from pipeline.tracking import lines
from pipeline.tracking.journal import Journal, RunFolder


class KilledError(BaseException):
    """The process died here: nothing that follows is done."""


class Disk:
    """`os.write`, `os.fsync` and `os.ftruncate`: written down in order with the name of the file, refused on demand.

    Attributes:
        left: so many bytes are taken before it is full, or the process dies; None: any number.
        refuses_sync: whether the next sync fails.
        kills: whether the process dies where the disk would refuse.
    """

    def __init__(self, patch, top):
        self.top, self.done = top, []
        self.left, self.refuses_sync, self.kills = None, False, False
        self.write, self.sync, self.truncate = os.write, os.fsync, os.ftruncate
        for name, fake in (("write", self._write), ("fsync", self._sync), ("ftruncate", self._truncate)):
            patch.setattr(os, name, fake)

    def name(self, descriptor):
        for path in (self.top, *self.top.rglob("*")):
            if path.exists() and os.path.samestat(path.stat(), os.fstat(descriptor)):
                return str(path.relative_to(self.top))
        raise AssertionError("a descriptor of another folder")

    def _refuse(self):
        if self.kills:
            raise KilledError
        raise OSError(errno.ENOSPC, "No space left on device")

    def _write(self, descriptor, content):
        self.done.append(("write", self.name(descriptor), bytes(content)))
        if self.left is None:
            return self.write(descriptor, content)
        taken = content[: self.left]
        self.left -= len(taken)
        if taken:
            self.write(descriptor, taken)
        if not taken or (self.kills and len(taken) < len(content)):
            self._refuse()
        return len(taken)

    def _sync(self, descriptor):
        self.done.append(("sync", self.name(descriptor)))
        if self.refuses_sync:
            self._refuse()

    def _truncate(self, descriptor, size):
        self.truncate(descriptor, size)

    def taken(self):
        """What was done since the last call, without the content."""
        done, self.done = [each[:2] for each in self.done], []
        return done


@pytest.fixture
def folder(tmp_path):
    return RunFolder(tmp_path / "runs" / "run")


@pytest.fixture
def disk(folder, monkeypatch, tmp_path):
    return Disk(monkeypatch, tmp_path)


RUN = "runs/run"
WRITTEN = [("write", f"{RUN}/journal.jsonl"), ("sync", f"{RUN}/journal.jsonl")]
TWICE = [("write", f"{RUN}/vital.jsonl"), ("sync", f"{RUN}/vital.jsonl")]


def ids(folder):
    return [event["id"] for event in folder.events()]


@pytest.mark.parametrize("kind", ["tags", "metrics", "dataset", "artifact", "model"])
@pytest.mark.parametrize("write", [Journal.append, Journal.append_or_hold])
def test_an_event_is_synced_to_the_disk_before_anyone_hears_of_it(folder, disk, kind, write):
    journal = Journal(folder)
    disk.taken()
    write(journal, kind, id=1)
    assert disk.taken() == WRITTEN


@pytest.mark.parametrize("kind", ["start", "resume", "end"])
def test_what_the_run_is_and_how_it_ended_is_synced_twice_the_journal_first(folder, disk, kind):
    journal = Journal(folder)
    disk.taken()
    journal.append(kind, id=1)
    assert disk.taken() == WRITTEN + TWICE
    assert (folder.path / "vital.jsonl").read_bytes() == (folder.path / "journal.jsonl").read_bytes()


def test_metrics_are_synced_as_well(folder, disk):
    journal = Journal(folder)
    disk.taken()
    journal.metrics({"loss": 1.0}, 1)
    assert disk.taken() == WRITTEN


def test_a_new_folder_and_the_journal_in_it_are_entries_that_the_disk_has(folder, disk):
    Journal(folder)
    assert disk.taken() == [("sync", "runs"), ("sync", RUN)]


def test_a_journal_that_is_opened_again_is_synced_with_what_was_cut_off_or_added(folder, disk):
    Journal(folder).close()
    disk.taken()
    Journal(folder).close()
    assert disk.taken() == [("sync", RUN)]


@pytest.mark.parametrize("folders", ["", "plots", "plots/deep"])
def test_an_artifact_and_the_folders_that_name_it_are_on_the_disk_before_its_event(folder, disk, folders):
    journal = Journal(folder)
    path = folder.artifacts / folders / "curve.png"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"picture")
    disk.taken()
    journal.artifact(path)
    done = disk.taken()
    between = [path.parent, *path.parent.parents]
    named = [str(each.relative_to(disk.top)) for each in between if each.is_relative_to(folder.path)]
    assert set(done[:-2]) == {("sync", each) for each in [str(path.relative_to(disk.top)), *named]}
    assert done[-2:] == WRITTEN


def test_of_a_folder_as_artifact_every_file_is_on_the_disk_before_its_event(folder, disk):
    journal = Journal(folder)
    top = folder.artifacts / "report"
    (top / "pages").mkdir(parents=True)
    for name in ("a.csv", "pages/b.html"):
        (top / name).write_text(name)
    disk.taken()
    journal.artifact(top)
    done = disk.taken()
    inside = ["", "/a.csv", "/pages", "/pages/b.html"]
    assert {("sync", f"{RUN}/artifacts/report{each}") for each in inside} <= set(done[:-2])
    assert done[-2:] == WRITTEN
    (event,) = folder.events()
    assert (event["kind"], event["path"]) == ("artifact", "report")


def test_a_file_that_cannot_be_synced_gets_no_event(folder, disk):
    journal = Journal(folder)
    with pytest.raises(FileNotFoundError):
        journal.artifact(folder.artifacts / "never written.png")
    folder.artifacts.mkdir()
    (folder.artifacts / "there.png").write_bytes(b"")
    disk.refuses_sync = True
    with pytest.raises(OSError, match="No space left"):
        journal.artifact(folder.artifacts / "there.png")
    assert folder.events() == []


def test_a_record_taken_only_in_part_is_taken_back_at_every_byte(folder, disk):
    journal = Journal(folder)
    journal.append("tags", id=0)
    before = (folder.path / "journal.jsonl").read_bytes()
    for taken in range(1, 48):
        disk.left = taken
        with pytest.raises(OSError, match=r"^the disk took only a part of the record$"):
            journal.append("tags", id=1)
        assert (folder.path / "journal.jsonl").read_bytes() == before
    disk.left = 0
    with pytest.raises(OSError, match="No space left"):
        journal.append("tags", id=1)
    disk.left = None
    assert journal.append("tags", id=2)["n"] == 1
    assert ids(folder) == [0, 2]
    assert (folder.path / "journal.jsonl").read_bytes().count(b"\n") == 2


def test_a_record_whose_sync_failed_is_taken_back_and_its_number_given_again(folder, disk):
    journal = Journal(folder)
    disk.refuses_sync = True
    with pytest.raises(OSError, match="No space left"):
        journal.append("start", id=0)
    assert [path.name for path in folder.path.iterdir() if path.stat().st_size] == []
    disk.refuses_sync = False
    journal.append("start", id=1)
    assert [(event["id"], event["n"]) for event in folder.events()] == [(1, 0)]


def test_what_a_full_disk_did_not_take_is_held_and_written_in_its_order_once_there_is_room(folder, disk):
    journal = Journal(folder)
    journal.append_or_hold("start", id=0)
    disk.left = 9
    journal.append_or_hold("tags", id=1)
    journal.metrics({"loss": 0.5}, 1)
    journal.append_or_hold("tags", id=3)
    assert [event["kind"] for event in journal.held] == ["tags", "metrics", "tags"]
    assert len(folder.events()) == 1
    disk.left = None
    journal.append_or_hold("end", id=4)
    assert journal.held == []
    assert [(event["n"], event["kind"]) for event in folder.events()] == [
        (0, "start"),
        (1, "tags"),
        (2, "metrics"),
        (3, "tags"),
        (4, "end"),
    ]
    assert [event["n"] for event in RunFolder(folder.path).events()] == list(range(5))


def test_a_disk_that_fills_up_between_two_held_events_keeps_the_rest_held(folder, disk):
    journal = Journal(folder)
    disk.left = 0
    for number in range(3):
        journal.append_or_hold("tags", id=number)
    disk.left = 80  # one line and a part of the next
    journal.append_or_hold("tags", id=3)
    assert ids(folder) == [0]
    assert [event["id"] for event in journal.held] == [1, 2, 3]
    disk.left = None
    journal.append_or_hold("tags", id=4)
    assert ids(folder) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("taken", [0, 1, 30])
def test_a_second_copy_that_the_disk_does_not_take_whole_fails_nothing_and_spoils_no_other(folder, disk, taken):
    journal = Journal(folder)
    start = journal.append("start", id=0)
    disk.left = len(lines.line_of({"kind": "resume", "time": start["time"], "id": 1, "n": 1})) + taken
    resume = journal.append("resume", id=1)
    disk.left = None
    end = journal.append("end", id=2)
    assert folder.events() == [start, resume, end]
    (folder.path / "journal.jsonl").unlink()
    assert [event.get("id") for event in folder.events()] == [0, None, 2]


def test_a_second_copy_that_cannot_be_opened_or_synced_fails_nothing(folder, disk):
    journal = Journal(folder)
    (folder.path / "vital.jsonl").mkdir()
    journal.append("start", id=0)
    (folder.path / "vital.jsonl").rmdir()
    journal.append("end", id=1)
    assert ids(folder) == [0, 1]
    assert folder.ended()["id"] == 1
    assert [event["id"] for event in lines.whole((folder.path / "vital.jsonl").read_bytes())] == [1]


@pytest.mark.parametrize("fault", ["lock", "sync"])
def test_a_journal_that_cannot_be_opened_leaves_no_lock(folder, disk, monkeypatch, fault):
    Journal(folder).close()
    if fault == "sync":
        disk.refuses_sync = True
    else:
        monkeypatch.setattr(
            journal_module.fcntl, "flock", lambda *words: (_ for _ in ()).throw(OSError(5, "I/O error"))
        )
    closed, real = [], os.close
    monkeypatch.setattr(os, "close", lambda descriptor: (closed.append(descriptor), real(descriptor))[1])
    with pytest.raises(OSError, match=r"I/O error|No space left"):
        Journal(folder)
    monkeypatch.undo()
    assert len(closed) >= 1
    assert not folder.is_alive()


def test_the_state_is_replaced_whole_or_stays_as_it_was(folder, monkeypatch):
    Journal(folder).close()
    folder.write_state({"run_id": "abc", "delivered": 3})
    real, seen = Path.replace, []

    def look_then_replace(self, target):
        seen.append((self.name, json.loads(self.read_text())["delivered"], folder.state()["delivered"]))
        return real(self, target)

    monkeypatch.setattr(Path, "replace", look_then_replace)
    folder.write_state({"run_id": "abc", "delivered": 4})
    assert seen == [("delivery.json.partial", 4, 3)]
    assert folder.state() == {"run_id": "abc", "delivered": 4}

    def half(self, content):
        with self.open("wb") as file:
            file.write(content[: len(content) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(OSError, match="No space left"):
        folder.write_state({"run_id": "abc", "delivered": 5})
    assert folder.checked_state() == ({"run_id": "abc", "delivered": 4}, True)


def test_what_json_does_not_take_is_one_error_at_once_and_holds_up_nothing(folder, disk):
    journal = Journal(folder)
    with pytest.raises(TypeError):
        journal.append_or_hold("tags", id={1, 2})
    journal.append_or_hold("tags", id=1)
    disk.left = 0
    journal.append_or_hold("tags", id=2)
    with pytest.raises(TypeError):
        journal.append_or_hold("tags", id={3, 4})
    with pytest.raises(TypeError):
        journal.append_or_hold("end", id={3, 4})
    assert ([event["id"] for event in journal.held], journal.is_closed) == ([2], False)
    disk.left = None
    journal.write_held()
    assert (ids(folder), journal.held) == ([1, 2], [])


KINDS = st.sampled_from(["tags", "start", "end", "resume"])
STEPS = st.lists(
    st.tuples(st.sampled_from(["append", "hold", "full", "no sync", "kill", "kill in sync", "reopen"]), KINDS)
    | st.tuples(st.sampled_from(["full", "kill"]), KINDS, st.integers(0, 400)),
    max_size=12,
)


@settings(max_examples=60)
@given(STEPS)
def test_whatever_is_appended_refused_or_killed_numbers_rise_without_gaps_and_nothing_synced_is_lost(steps):
    with tempfile.TemporaryDirectory() as top, pytest.MonkeyPatch.context() as patch:
        disk, folder = Disk(patch, Path(top)), RunFolder(Path(top) / "run")
        journal, sure, tried = Journal(folder), [], []
        for number, (step, kind, *at) in enumerate(steps):
            disk.left, disk.kills = (at[0] if at else 20) if step in ("full", "kill") else None, "kill" in step
            disk.refuses_sync = "sync" in step
            tried.append(number)
            try:
                if step == "reopen":
                    raise KilledError
                if step == "hold":
                    journal.append_or_hold(kind, id=number)
                else:
                    journal.append(kind, id=number)
                sure.append(number)
            except OSError:
                tried.remove(number)  # "the journal is then as it was before"
            except KilledError:
                disk.left, disk.refuses_sync, disk.kills = None, False, False
                journal.close()
                journal = Journal(folder)
        events = folder.events()
        assert [event["n"] for event in events] == list(range(len(events))) == list(range(journal.count))
        found = [event["id"] for event in events]
        assert found == sorted(set(found))
        assert set(sure) <= set(found) <= set(tried)
        assert (folder.path / "journal.jsonl").read_bytes().count(b"\n") == len(events)
        last = next((event for event in reversed(events) if event["kind"] in ("end", "resume")), {"kind": ""})
        assert (folder.ended() or {"kind": ""})["kind"] == ("end" if last["kind"] == "end" else "")
        journal.close()


@settings(max_examples=40)
@given(st.integers(0, 10**6), st.integers(0, 6), st.booleans())
def test_behind_a_journal_that_was_cut_no_event_is_skipped_and_no_number_given_twice(cut, delivered, vital_too):
    with tempfile.TemporaryDirectory() as top, pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        folder = RunFolder(Path(top) / "run")
        journal = Journal(folder)
        for number, kind in enumerate(["start", "tags", "tags", "end", "resume", "tags"]):
            journal.append(kind, id=number)
        journal.close()
        folder.write_state({"run_id": "abc", "delivered": delivered})
        content = (folder.path / "journal.jsonl").read_bytes()
        (folder.path / "journal.jsonl").write_bytes(content[: cut % (len(content) + 1)])
        if vital_too:
            (folder.path / "vital.jsonl").unlink()
        before = folder.events()
        journal = Journal(folder)
        state = folder.state()
        assert state == {"run_id": "abc", "delivered": min(delivered, len(before))}
        event = journal.append("tags", id=7)
        assert event["n"] == len(before) >= state["delivered"]
        assert folder.events() == [*before, event]
        journal.close()
        assert RunFolder(folder.path).events() == [*before, event]


def test_a_folder_of_runs_that_may_be_written_and_not_read_takes_a_run(folder, monkeypatch):
    real = journal_module.sync_to_disk

    def unreadable(path):
        if path == folder.path.parent:
            raise PermissionError(errno.EACCES, "Permission denied")
        real(path)

    monkeypatch.setattr(journal_module, "sync_to_disk", unreadable)
    Journal(folder).append("start", id=0)
    assert ids(folder) == [0]


def test_a_run_that_was_resumed_has_not_ended_although_the_journal_is_cut_behind_its_former_end(folder):
    journal = Journal(folder)
    for number, kind in enumerate(["start", "end", "resume", "tags"]):
        journal.append(kind, id=number)
    journal.close()
    content = (folder.path / "journal.jsonl").read_bytes().splitlines(keepends=True)
    (folder.path / "journal.jsonl").write_bytes(b"".join(content[:2]))
    assert folder.ended() is None
    journal = Journal(folder)
    assert not journal.is_closed
    assert [event["id"] for event in folder.events()] == [0, 1, 2]
    journal.append("end", id=4)
    assert folder.ended()["id"] == 4
