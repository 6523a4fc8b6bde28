"""Interruptions: raised once, and never in the middle of a write."""

import os
import signal

import pytest

from pipeline import record
from pipeline.interrupts import Interrupted, interruptions, uninterrupted
from pipeline.record import Journal, RunFolder


def interrupt_me(number=signal.SIGTERM):
    os.kill(os.getpid(), number)


@pytest.mark.parametrize(("number", "words"), [(signal.SIGINT, "Ctrl-C"), (signal.SIGTERM, "SIGTERM")])
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


def test_a_second_signal_is_not_heard():
    with interruptions():
        with pytest.raises(Interrupted):
            interrupt_me()
        interrupt_me()


def test_the_handlers_from_before_are_put_back():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted), interruptions():
        interrupt_me()
    assert signal.getsignal(signal.SIGTERM) is before


def test_an_event_written_while_a_signal_comes_is_written_once(tmp_path, monkeypatch):
    journal = Journal(RunFolder(tmp_path / "run"))
    written = record.os.fsync

    def interrupted_fsync(descriptor):
        written(descriptor)
        interrupt_me()

    with interruptions():
        monkeypatch.setattr(record.os, "fsync", interrupted_fsync)
        with pytest.raises(Interrupted):
            journal.metrics({"train_loss": 1.0}, 1)
        monkeypatch.undo()
        journal.append_or_hold("end", status="KILLED")
    assert [event["kind"] for event in journal.folder.events()] == ["metrics", "end"]
