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
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
DEAF_S = 10.0

_sections = 0
_waiting: int | None = None
_first: tuple[int, float] | None = None
_last_words: list[Callable[[str], object]] = []
_depth = 0


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
        _waiting = number
    else:
        raise Interrupted(number)


def _leave_at_once() -> None:
    """End the process with the last words, if they can be written, and without waiting for anybody."""
    assert _first is not None
    if not _sections:  # else they would fall into the middle of a write
        for word in reversed(_last_words):
            with contextlib.suppress(BaseException):
                word(str(Interrupted(_first[0])))
    with contextlib.suppress(Exception):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(128 + _first[0])


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
    """Finish what is inside before `Interrupted` is raised, also if it ends with an error.

    A signal mask would not do: it holds for one thread, and any other can be handed the signal, upon which Python calls
    the handler in the main thread all the same.
    """
    global _sections, _waiting
    _sections += 1
    try:
        yield
    finally:
        _sections -= 1
        if _waiting is not None and not _sections:
            number, _waiting = _waiting, None
            raise Interrupted(number)
