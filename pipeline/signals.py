"""Ctrl-C, SIGTERM and SIGHUP as one exception, that does not fall into the middle of a write.

The first signal decides. What follows within ten seconds, while the record is closed and delivered, is not heard; a
later one ends the process at once. No handler is ever replaced by "ignore": a signal that is under way just then would
raise `OSError: Signal 15 ignored`, and Lightning puts back the handlers that it found.
"""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
DEAF_S = 10.0

_sections = 0
_waiting: Callable[[], object] | None = None
_first: tuple[int, float] | None = None
_last_words: list[Callable[[str], object]] = []
_depth = 0
_watchers = 0


os.register_at_fork(after_in_child=_last_words.clear)  # they are the parent's


class Interrupted(BaseException):
    """Ctrl-C, SIGTERM or SIGHUP. A BaseException, so that nothing on the way takes it for an error to handle."""

    def __init__(self, signal_number: int) -> None:
        self.exit_code = 128 + signal_number
        super().__init__("Ctrl-C" if signal_number == signal.SIGINT else signal.Signals(signal_number).name)


def _interrupt(number: int, frame: FrameType | None) -> None:
    global _waiting, _first
    if _first is not None:
        if time.monotonic() - _first[1] > DEAF_S:
            _leave_at_once()
        return
    _first = (number, time.monotonic())
    if _sections:
        _waiting = partial(_raise, Interrupted(number))
    else:
        raise Interrupted(number)


def _raise(error: BaseException) -> None:
    raise error


def _leave_at_once() -> None:
    """End the process with the last words, if they can be written, and without waiting for anybody."""
    assert _first is not None
    if not _sections:  # else they would fall into the middle of a write
        _say_last_words(_first[0])
    with contextlib.suppress(Exception):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(128 + _first[0])


def _say_last_words(number: int) -> None:
    for word in reversed(_last_words):
        with contextlib.suppress(BaseException):
            word(str(Interrupted(number)))


def _terminate(number: int, frame: FrameType | None) -> None:
    """Say the last words, then end the process as the signal does where nobody handles it."""
    global _waiting
    if signal.getsignal(number) is not _terminate:  # one over this (Lightning's) ends it its own way
        return
    if _sections:
        _waiting = partial(_terminate, number, None)
        return
    _say_last_words(number)
    signal.signal(number, signal.SIG_DFL)
    signal.raise_signal(number)


@contextmanager
def last_words_on_termination() -> Iterator[None]:
    """Have the last words said before SIGTERM or SIGHUP ends the process, as it then does all the same.

    Only for signals that nobody else handles or ignores, and only in the main thread, which alone may set handlers.
    """
    global _watchers
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _exchange(signal.SIG_DFL, _terminate)
    _watchers += 1
    try:
        yield
    finally:
        _watchers -= 1
        if not _watchers and threading.current_thread() is threading.main_thread():
            _exchange(_terminate, signal.SIG_DFL)


def _exchange(before: object, handler: "Callable[[int, FrameType | None], object] | signal.Handlers") -> None:
    for each in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(each) is before:
            signal.signal(each, handler)


@contextmanager
def interruptions() -> Iterator[None]:
    """Turn the first signal into `Interrupted`. Inside another such block nothing changes.

    A hangup that is ignored (nohup) stays so.
    """
    global _depth, _first, _waiting
    heard = [each for each in SIGNALS if each != signal.SIGHUP or signal.getsignal(each) != signal.SIG_IGN]
    before = {} if _depth else {each: signal.signal(each, _interrupt) for each in heard}
    _depth += 1
    try:
        yield
    finally:
        _depth -= 1
        for each, handler in before.items():
            signal.signal(each, handler)
        if not _depth:
            _first = _waiting = None


def keep_sigterm() -> Callable[[], None]:
    """Remember how SIGTERM is handled now; the function that is returned puts it back."""
    handler = signal.getsignal(signal.SIGTERM)

    def put_back() -> None:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)

    return put_back


@contextmanager
def last_words(word: Callable[[str], object]) -> Iterator[None]:
    """Have `word` called with the signal's name, should a later signal end the process inside."""
    _last_words.append(word)
    try:
        yield
    finally:
        _last_words.remove(word)


def leave_signals_to_the_first_process() -> None:
    """In a helper of a distributed run: the first process hears them, and ends this one with SIGTERM.

    Python could not handle that while this process waits for the others inside a collective: the system does.
    """
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for each in (signal.SIGINT, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Finish what is inside before `Interrupted`, or Python's own `KeyboardInterrupt`, is raised.

    Also if it ends with an error. A signal mask would not do: it holds for one thread, and any other can be handed the
    signal, upon which Python calls the handler in the main thread all the same.
    """
    global _sections, _waiting
    holds_ctrl_c = not _sections and _hold_ctrl_c()
    _sections += 1
    try:
        yield
    finally:
        _sections -= 1
        if holds_ctrl_c:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        if _waiting is not None and not _sections:
            end, _waiting = _waiting, None
            end()


def _hold_ctrl_c() -> bool:
    """Let Ctrl-C wait as well where nobody but Python handles it: in a script that is not ours; a microsecond."""

    def wait(number: int, frame: FrameType | None) -> None:
        global _waiting
        _waiting = partial(_raise, KeyboardInterrupt())

    if threading.current_thread() is not threading.main_thread():
        return False
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        return False
    signal.signal(signal.SIGINT, wait)
    return True
