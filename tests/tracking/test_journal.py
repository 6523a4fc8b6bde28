"""A run's folder read without a lock and written by one process at a time: begin, end, state, lock, numbers, times."""

import fcntl
import json
import math
import os
import time
from pathlib import Path

import pytest

from pipeline.tracking import journal as journal_module
from pipeline.tracking import lines
from pipeline.tracking.journal import Journal, RunFolder, RunIsAliveError


@pytest.fixture(autouse=True)
def fast(monkeypatch):
    """What is on the disk is test_disk's."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture
def folder(tmp_path):
    return RunFolder(tmp_path / "runs" / "run")


@pytest.fixture
def clock(monkeypatch):
    """Milliseconds that a test sets."""
    now = [1000]
    monkeypatch.setattr(journal_module, "now_ms", lambda: now[0])
    return now


def written(folder, *kinds):
    journal = Journal(folder)
    for kind in kinds:
        journal.append(kind)
    journal.close()
    return folder


def rewrite(folder, change, name="journal.jsonl"):
    path = folder.path / name
    path.write_bytes(change(path.read_bytes()))


def test_a_folder_that_is_not_there_says_nothing(folder):
    assert folder.events() == []
    assert folder.read() == ([], 0)
    assert (folder.started(), folder.ended(), folder.state()) == (None, None, {})
    assert folder.checked_state() == ({}, True)
    assert not folder.is_alive()
    assert not folder.end_is_unknown()
    assert folder.artifacts == folder.path / "artifacts"
    assert folder.checkpoints == folder.path / "checkpoints"


def test_a_file_in_the_place_of_the_folder_says_nothing(tmp_path):
    (tmp_path / "run").write_text("not a folder")
    folder = RunFolder(str(tmp_path / "run"))
    assert folder.events() == []
    assert (folder.started(), folder.ended(), folder.is_alive()) == (None, None, False)


def test_the_time_of_day_is_counted_in_whole_milliseconds(monkeypatch):
    monkeypatch.setattr(time, "time_ns", lambda: 1_793_494_799_123_999_999)
    assert journal_module.now_ms() == 1_793_494_799_123


def test_an_event_has_kind_and_time_before_its_content_and_its_number_behind(folder, clock):
    journal = Journal(folder)
    event = journal.append("tags", tags={"a": "1"})
    assert event == {"kind": "tags", "time": 1000, "tags": {"a": "1"}, "n": 0}
    assert (folder.path / "journal.jsonl").read_bytes() == lines.line_of(event)
    assert lines.line_of(event)[9:] == b'{"kind":"tags","time":1000,"tags":{"a":"1"},"n":0}\n'


def test_the_first_event_says_which_folder_it_was_written_for_and_no_other_does(folder, monkeypatch):
    monkeypatch.chdir(folder.path.parent.parent)
    journal = Journal(RunFolder("runs/run"))
    assert journal.append("start")["folder"] == str(folder.path)
    assert "folder" not in journal.append("resume")


def test_a_run_may_lie_in_a_folder_of_folders_that_are_not_there_yet(tmp_path):
    assert Journal(RunFolder(tmp_path / "not" / "there" / "run")).append("start")["n"] == 0


def test_times_never_go_back_also_when_the_clock_does_or_the_journal_is_opened_again(folder, clock):
    journal = Journal(folder)
    for now in (1000, 999, 1005, 3):
        clock[0] = now
        journal.append("tags")
    journal.close()
    Journal(folder).append("tags")
    assert [event["time"] for event in folder.events()] == [1000, 1000, 1005, 1005, 1005]


def test_metrics_bear_the_time_at_which_they_were_measured(folder, clock):
    journal = Journal(folder)
    journal.metrics({"loss": 1.0}, 3, 512)
    journal.metrics({"loss": 2.0}, 4)
    assert [(event["step"], event["time"]) for event in folder.events()] == [(3, 512), (4, 1000)]
    assert folder.events()[0]["values"] == {"loss": 1.0}


def test_of_metrics_only_what_did_not_stand_when_the_journal_was_opened_is_recorded(folder):
    journal = Journal(folder)
    journal.metrics({}, 1)
    assert folder.events() == []
    journal.metrics({"a": 1.0, "b": 2.0}, 1)
    journal.metrics({"a": 9.0, "c": 3.0}, 1)
    journal.metrics({}, 2, not_finite={"e": math.inf, "g": math.inf})
    journal.close()
    again = Journal(folder)
    again.metrics({"a": 1.0, "b": 2.0, "c": 3.0, "d": 4.0}, 1)
    again.metrics({"b": 5.0, "e": 1.0}, 2, not_finite={"g": math.inf, "f": -math.inf})
    again.metrics({"b": 5.0}, 2)
    again.forget_before()
    again.metrics({"a": 1.0}, 1)
    found = [(event["step"], event["values"], event.get("not_finite")) for event in folder.events()]
    assert found == [
        (1, {"a": 1.0, "b": 2.0}, None),
        (1, {"a": 9.0, "c": 3.0}, None),
        (2, {}, {"e": math.inf, "g": math.inf}),
        (1, {"d": 4.0}, None),
        (2, {"b": 5.0}, {"f": -math.inf}),
        (2, {"b": 5.0}, None),
        (1, {"a": 1.0}, None),
    ]


@pytest.mark.parametrize(
    ("kinds", "closed"),
    [
        ([], False),
        (["start"], False),
        (["start", "end"], True),
        (["start", "end", "tags"], True),
        (["start", "end", "resume"], False),
        (["start", "end", "resume", "tags"], False),
        (["start", "end", "resume", "end"], True),
    ],
)
def test_a_run_is_closed_from_its_end_until_it_is_resumed_for_the_writer_and_for_every_reader(folder, kinds, closed):
    journal = Journal(folder)
    for kind in kinds:
        journal.append(kind, mark=len(folder.events()))
    assert journal.is_closed is closed
    journal.close()
    ended = folder.ended()
    assert (ended is not None) is closed
    assert ended is None or ended["mark"] == len(kinds) - 1 - kinds[::-1].index("end")
    again = Journal(folder)
    assert (again.is_closed, again.count, again.held) == (closed, len(kinds), [])


def test_of_several_fits_in_one_run_what_the_last_one_logged_before_is_not_repeated_and_nothing_else_is_lost(folder):
    journal = Journal(folder)
    for step, loss in ((0, 0.9), (1, 0.8), (2, 0.7), (3, 0.6)):
        journal.metrics({"loss": loss, "val_loss": loss + 1}, step)
    journal.metrics({"loss": 0.5}, 0)  # a second fit, which was killed after its second step
    journal.metrics({}, 1, not_finite={"loss": math.nan})
    journal.close()
    again = Journal(folder)
    for step, loss in ((1, 0.4), (2, 0.3), (3, 0.2)):
        again.metrics({"loss": loss}, step)
        again.metrics({"val_loss": 9.0}, step)
    found = [(event["step"], event["values"]) for event in folder.events()[6:]]
    assert found == [(2, {"loss": 0.3}), (3, {"loss": 0.2})]


def test_begin_and_end_are_found_in_a_journal_longer_than_what_is_looked_at_first(folder):
    journal = Journal(folder)
    journal.append("start", params={"text": "x" * 70_000})
    journal.append("tags", tags={"text": "y" * 70_000})
    journal.append("end", tags={"text": "z" * 70_000})
    journal.append("tags", tags={})
    events = folder.events()
    assert (folder.started(), folder.ended()) == (events[0], events[2])


def test_the_run_began_with_its_start_and_not_with_what_else_stands_first(folder):
    written(folder, "tags", "start")
    assert folder.started()["n"] == 1
    assert folder.ended() is None


def test_begin_and_end_are_read_without_reading_a_long_journal_whole(folder, monkeypatch):
    written(folder, "start", "tags", "end")
    start, _, end = folder.events()
    monkeypatch.setattr(RunFolder, "read", lambda self: pytest.fail("read whole"))
    real, looked = lines.bytes_of, []
    monkeypatch.setattr(lines, "bytes_of", lambda path, end=None: looked.append((path.name, end)) or real(path, end))
    assert (folder.started(), folder.ended()) == (start, end)
    assert looked == [("journal.jsonl", 65536), ("journal.jsonl", -65536), ("vital.jsonl", None)]


@pytest.mark.parametrize(
    ("end", "found"), [(None, b"0123456789"), (4, b"0123"), (-4, b"6789"), (0, b""), (-20, b"0123456789")]
)
def test_of_a_file_are_read_its_first_or_last_bytes(tmp_path, end, found):
    (tmp_path / "file").write_bytes(b"0123456789")
    assert lines.bytes_of(tmp_path / "file", end) == found
    assert lines.bytes_of(tmp_path / "none", end) == b""


def test_the_second_file_is_read_first_so_that_it_never_knows_of_events_that_are_still_to_come(folder, monkeypatch):
    written(folder, "start")
    real, order = lines.bytes_of, []

    def noted(path, **words):
        order.append(path.name)
        return real(path, **words)

    monkeypatch.setattr(lines, "bytes_of", noted)
    folder.read()
    assert order == ["vital.jsonl", "journal.jsonl"]


@pytest.mark.parametrize(
    ("change", "delivered", "unknown"),
    [
        (lambda content: content, 3, False),
        (lambda content: content, 4, True),
        (lambda content: content.replace(b'"end"', b'"eNd"'), 0, True),
        (lambda content: content.replace(b'"kind":"end"', b'"kInd":"end"'), 0, True),
        (lambda content: content.replace(b'"time"', b'"tIme"'), 0, True),
        (lambda content: content.replace(b'"tags"', b'"tAgs"'), 0, False),
    ],
)
def test_how_a_run_ended_is_unknown_if_its_end_may_be_what_is_lost(folder, change, delivered, unknown):
    written(folder, "start", "tags", "end")
    (folder.path / "vital.jsonl").unlink()
    folder.write_state({"run_id": "abc", "delivered": delivered})
    rewrite(folder, change)
    assert folder.end_is_unknown() is unknown


def test_a_lost_last_record_that_was_no_end_leaves_the_end_known(folder):
    written(folder, "start", "tags")
    rewrite(folder, lambda content: content.replace(b'"time"', b'"tIme"'))
    assert folder.events()[-1]["kind"] == "lost"
    assert not folder.end_is_unknown()


STATE = {
    "run_id": "abc",
    "experiment_id": "7",
    "elsewhere": {"run_key": "k"},
    "told": "",
    "delivered": 0,
    "refused": [],
    "versions": {"m": "1"},
    "tracking_uri": "sqlite:///x",
    "trouble": {"since": 5, "error": "no answer", "advice": ""},
    "of a later version": 3,
}


def test_the_state_comes_back_as_it_was_written(folder):
    written(folder)
    folder.write_state(STATE)
    assert folder.checked_state() == (STATE, True)
    folder.write_state({**folder.state(), "trouble": None})
    assert folder.checked_state() == ({**STATE, "trouble": None}, True)
    assert [path.name for path in folder.path.iterdir() if "partial" in path.name] == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("run_id", 5),
        ("experiment_id", 7),
        ("elsewhere", []),
        ("told", None),
        ("delivered", -1),
        ("delivered", True),
        ("delivered", 2.0),
        ("refused", {}),
        ("versions", []),
        ("tracking_uri", None),
        ("trouble", "no answer"),
        ("trouble", {"since": "5", "error": "no answer"}),
        ("trouble", {"since": 5, "error": None}),
        ("trouble", {}),
    ],
)
def test_of_a_state_that_nobody_wrote_so_only_the_part_of_the_wrong_kind_is_left_out(folder, name, value):
    written(folder)
    (folder.path / "delivery.json").write_text(json.dumps({**STATE, name: value}))  # an older one, without checksum
    state, is_whole = folder.checked_state()
    left_out = {name, "delivered"} if name == "run_id" else {name}
    assert state == {each: known for each, known in STATE.items() if each not in left_out}
    assert not is_whole
    (folder.path / "delivery.json").write_text(json.dumps({"run_id": "", "told": 3, "trouble": None}))
    assert folder.checked_state() == ({"run_id": "", "trouble": None}, True)  # before there is a run nothing is lost


def test_without_a_run_nothing_can_have_been_delivered(folder):
    written(folder)
    folder.write_state({"run_id": "", "delivered": 3})
    assert folder.checked_state() == ({"run_id": ""}, True)
    folder.write_state({"trouble": None})
    assert folder.checked_state() == ({"trouble": None}, True)


@pytest.mark.parametrize("content", ["[]", "3", "null", "[" * 100_000, "{", ""])
def test_a_state_that_is_none_is_empty_and_damaged(folder, content):
    written(folder)
    (folder.path / "delivery.json").write_text(content)
    assert folder.checked_state() == ({}, False)


def test_the_checksum_is_of_the_content_in_any_order_and_none_is_asked_of_an_older_state(folder):
    written(folder)
    folder.write_state({"run_id": "abc", "delivered": 1})
    stored = json.loads((folder.path / "delivery.json").read_text())
    assert stored == {"run_id": "abc", "delivered": 1, "checksum": "56d4610d"}
    turned = dict(reversed(stored.items()))
    (folder.path / "delivery.json").write_text(json.dumps(turned))
    assert folder.checked_state() == ({"delivered": 1, "run_id": "abc"}, True)
    (folder.path / "delivery.json").write_text(json.dumps({**stored, "checksum": "00000000"}))
    assert folder.checked_state() == ({}, False)


def test_who_may_not_look_at_the_lock_takes_the_run_for_alive(folder, monkeypatch):
    written(folder, "start")
    real = Path.open

    def forbidden(self, *words):
        if self.name == "lock":
            raise PermissionError(13, "Permission denied")
        return real(self, *words)

    monkeypatch.setattr(Path, "open", forbidden)
    assert folder.is_alive()


def test_two_who_look_at_a_lock_at_once_do_not_take_each_other_for_the_writer(folder):
    written(folder, "start")
    with (folder.path / "lock").open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_SH | fcntl.LOCK_NB)
        assert not folder.is_alive()


@pytest.fixture
def left_open(monkeypatch):
    """The descriptors that `os.open` gave and nobody has closed."""
    descriptors, opened, closed = set(), os.open, os.close

    def note_opened(*words, **more):
        descriptors.add(descriptor := opened(*words, **more))
        return descriptor

    def note_closed(descriptor):
        closed(descriptor)
        descriptors.discard(descriptor)

    monkeypatch.setattr(os, "open", note_opened)
    monkeypatch.setattr(os, "close", note_closed)
    return descriptors


def test_a_run_is_held_until_it_is_closed_and_by_one_alone(folder, left_open):
    journal = Journal(folder)
    journal.append("start")
    assert len(left_open) == 2
    with pytest.raises(RunIsAliveError) as caught:
        Journal(folder)
    assert str(caught.value) == f"run {folder.path} is still running in another process"
    assert len(left_open) == 2
    journal.close()
    assert left_open == set()
    Journal(folder).close()


@pytest.mark.parametrize("lost", [0, 1, 2, 3])
def test_records_that_only_the_second_file_holds_are_written_back_into_a_journal_that_was_cut(folder, lost):
    written(folder, "start", "tags", "end", "resume")
    whole = (folder.path / "journal.jsonl").read_bytes().splitlines(keepends=True)
    rewrite(folder, lambda content: b"".join(whole[:lost]))
    before = folder.events()
    journal = Journal(folder)
    assert journal.size == (folder.path / "journal.jsonl").stat().st_size
    journal.append("tags")
    after = folder.events()
    assert after[:-1] == before
    assert after[-1]["n"] == len(before) == 4
    (folder.path / "vital.jsonl").unlink()
    assert [event["kind"] for event in folder.events()][2:] == ["end", "resume", "tags"]
    assert folder.events()[:lost] == before[:lost]


def test_a_last_line_without_its_line_break_gets_it_back_before_the_next(folder):
    written(folder, "one", "two")
    rewrite(folder, lambda content: content[:-1])
    journal = Journal(folder)
    content = (folder.path / "journal.jsonl").read_bytes()
    assert (content[-1:], journal.size, journal.count) == (b"\n", len(content), 2)
    journal.append("three")
    assert journal.size == (folder.path / "journal.jsonl").stat().st_size
    assert [event["kind"] for event in folder.events()] == ["one", "two", "three"]


@pytest.mark.parametrize(("delivered", "kept"), [(1, 1), (2, 2), (3, 2), (9, 2)])
def test_what_was_cut_off_counts_as_not_delivered(folder, delivered, kept):
    written(folder, "tags", "tags", "tags")
    folder.write_state({"run_id": "abc", "delivered": delivered, "versions": {"m": "1"}})
    rewrite(folder, lambda content: b"".join(content.splitlines(keepends=True)[:2]))
    Journal(folder).close()
    assert folder.state() == {"run_id": "abc", "delivered": kept, "versions": {"m": "1"}}


def test_a_state_that_is_not_ahead_of_the_journal_is_not_touched(folder):
    written(folder, "start")
    folder.write_state({"run_id": "abc", "delivered": 1})
    before = (folder.path / "delivery.json").stat()
    Journal(folder).close()
    assert (folder.path / "delivery.json").stat().st_ino == before.st_ino
    assert not (RunFolder(folder.path.parent / "other").path / "delivery.json").exists()
