"""Interruptions: raised once, and never in the middle of a write."""

import contextlib
import os
import signal
import subprocess
import sys
import time

import pytest

from pipeline import signals
from pipeline.signals import Interrupted, interruptions, last_words, uninterrupted
from pipeline.tracking import folders
from pipeline.tracking.journal import Journal, RunFolder
from tests.conftest import environment


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


def test_ctrl_c_in_a_script_that_is_not_ours_waits_for_the_end_of_a_write():
    done = []

    def interrupted_work():
        with uninterrupted():
            interrupt_me(signal.SIGINT)
            done.append("inside")
        done.append("after")

    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with pytest.raises(KeyboardInterrupt):
        interrupted_work()
    assert done == ["inside"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_handler_of_the_scripts_own_for_ctrl_c_stays():
    heard = []
    before = signal.signal(signal.SIGINT, lambda *words: heard.append("own"))
    try:
        with uninterrupted():
            interrupt_me(signal.SIGINT)
            assert heard == ["own"]
    finally:
        signal.signal(signal.SIGINT, before)


def ends_of(code):
    """How a process ends that runs the code with `words` as its last ones, and what it has printed."""
    head = (
        "import os, signal, threading\n"
        "from pipeline.signals import last_words, last_words_on_termination, uninterrupted\n"
        "say = lambda reason: print(reason, flush=True)\n"
        "me = os.getpid()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", head + code], capture_output=True, text=True, env=environment(), timeout=60
    )
    assert not done.stderr
    return done.returncode, done.stdout.split()


def test_sigterm_ends_a_script_as_ever_after_the_last_words():
    code = "with last_words(say), last_words_on_termination():\n    {0}; print('not reached')"
    assert ends_of(code.format("os.kill(me, signal.SIGTERM)")) == (-signal.SIGTERM, ["SIGTERM"])
    assert ends_of(code.format("os.kill(me, signal.SIGHUP)")) == (-signal.SIGHUP, ["SIGHUP"])
    inside = "\n    with uninterrupted():\n        os.kill(me, signal.SIGTERM); say('written')\n    "
    assert ends_of(code.format(inside + "pass")) == (-signal.SIGTERM, ["written", "SIGTERM"])


def test_the_last_of_several_puts_sigterm_back():
    code = (
        "one, two = last_words_on_termination(), last_words_on_termination()\n"
        "one.__enter__(); two.__enter__(); one.__exit__(None, None, None)\n"
        "print(signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)\n"
        "two.__exit__(None, None, None)\n"
        "print(signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)\n"
    )
    assert ends_of(code) == (0, ["False", "True"])


def test_who_handles_sigterm_before_or_on_top_of_it_decides_alone():
    code = (
        "signal.signal(signal.SIGTERM, lambda *words: say('own'))\n"
        "with last_words(say), last_words_on_termination():\n    os.kill(me, signal.SIGTERM)\n"
        "signal.signal(signal.SIGTERM, signal.SIG_DFL)\n"
        "with last_words(say), last_words_on_termination():\n"
        "    below = signal.getsignal(signal.SIGTERM)\n"
        "    signal.signal(signal.SIGTERM, lambda *words: (say('on top'), below(*words)))\n"
        "    os.kill(me, signal.SIGTERM)\n"
    )
    assert ends_of(code) == (0, ["own", "on", "top"])


def test_in_another_thread_and_in_a_fork_nothing_is_handled_or_said():
    code = (
        "def look():\n"
        "    with last_words_on_termination(): print(signal.getsignal(signal.SIGTERM) is signal.SIG_DFL, flush=True)\n"
        "thread = threading.Thread(target=look); thread.start(); thread.join()\n"
        "with last_words(say), last_words_on_termination():\n"
        "    child = os.fork()\n"
        "    if not child: os.kill(os.getpid(), signal.SIGTERM)\n"
        "    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    assert ends_of(code) == (0, ["True", "-15"])
