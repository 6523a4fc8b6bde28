"""Interruptions: raised once, and never in the middle of a write."""

import contextlib
import os
import signal
import time

import pytest

from pipeline import signals
from pipeline.signals import Interrupted, interruptions, last_words, uninterrupted
from pipeline.tracking import folders
from pipeline.tracking.folders import Journal, RunFolder


def interrupt_me(number=signal.SIGTERM):
    os.kill(os.getpid(), number)


@pytest.mark.parametrize(
    ("number", "words"), [(signal.SIGINT, "Ctrl-C"), (signal.SIGTERM, "SIGTERM"), (signal.SIGHUP, "SIGHUP")]
)
def test_a_signal_is_raised_with_its_name_and_the_shells_exit_code(number, words):
    with pytest.raises(Interrupted, match=words) as caught, interruptions():
        interrupt_me(number)
    assert caught.value.exit_code == 128 + number


def test_what_must_not_be_torn_is_finished_first():
    done = []

    def interrupted_work():
        with uninterrupted():
            interrupt_me()
            done.append("inside")
        done.append("after")

    with interruptions(), pytest.raises(Interrupted):
        interrupted_work()
    assert done == ["inside"]


@pytest.mark.parametrize("numbers", [(15, 15), (2, 15), (2, 2, 2), (1, 15, 2)])
def test_the_first_signal_decides_and_the_next_are_not_heard_even_when_handlers_are_put_back(numbers):
    with interruptions():
        handlers = {each: signal.getsignal(each) for each in signals.SIGNALS}
        with pytest.raises(Interrupted) as caught:
            interrupt_me(numbers[0])
        for number in numbers[1:]:
            interrupt_me(number)
        assert {each: signal.getsignal(each) for each in signals.SIGNALS} == handlers
        with interruptions():  # a block inside begins nothing anew
            interrupt_me(numbers[-1])
    assert caught.value.exit_code == 128 + numbers[0]


def test_a_signal_after_ten_seconds_ends_the_process_at_once_with_its_last_words(monkeypatch):
    ends, words = [], []
    monkeypatch.setattr(signals.os, "_exit", ends.append)
    with interruptions(), last_words(words.append):
        with pytest.raises(Interrupted):
            interrupt_me(signal.SIGINT)
        interrupt_me()
        assert (ends, words) == ([], [])
        later = time.monotonic() + signals.DEAF_S + 1
        monkeypatch.setattr(signals.time, "monotonic", lambda: later)
        interrupt_me()
        with uninterrupted():  # the last words are not for the middle of a write
            interrupt_me()
    assert (ends, words) == ([130, 130], ["Ctrl-C"])


def test_a_hangup_that_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interruptions():
            interrupt_me(signal.SIGHUP)
            with pytest.raises(Interrupted, match="SIGTERM"):
                interrupt_me()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_signal_in_a_write_that_fails_is_raised_all_the_same():
    def failing_write():
        with contextlib.suppress(OSError), uninterrupted():
            interrupt_me()
            raise OSError("no space left")

    with interruptions(), pytest.raises(Interrupted):
        failing_write()


def test_the_handlers_from_before_are_put_back():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted), interruptions():
        interrupt_me()
    assert signal.getsignal(signal.SIGTERM) is before


def test_an_event_written_while_a_signal_comes_is_written_once(tmp_path, monkeypatch):
    journal = Journal(RunFolder(tmp_path / "run"))
    written = folders.os.fsync

    def interrupted_fsync(descriptor):
        written(descriptor)
        interrupt_me()

    with interruptions():
        monkeypatch.setattr(folders.os, "fsync", interrupted_fsync)
        with pytest.raises(Interrupted):
            journal.metrics({"train_loss": 1.0}, 1)
        monkeypatch.undo()
        journal.append_or_hold("end", status="KILLED")
    assert [event["kind"] for event in journal.folder.events()] == ["metrics", "end"]
