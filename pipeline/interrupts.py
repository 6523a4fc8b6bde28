"""Ctrl-C and SIGTERM as one exception, that does not fall into the middle of a write."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)

_sections = 0
_waiting: int | None = None


class Interrupted(BaseException):
    """Ctrl-C or SIGTERM. A BaseException, so that nothing on the way takes it for an error that it can handle."""

    def __init__(self, signal_number: int) -> None:
        """Remember which signal it was."""
        self.exit_code = 128 + signal_number
        super().__init__("Ctrl-C" if signal_number == signal.SIGINT else "SIGTERM")


@contextmanager
def interruptions() -> Iterator[None]:
    """Turn the first SIGINT or SIGTERM into `Interrupted`; a later one, while the record is closed, is not heard."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        global _waiting
        for each in SIGNALS:
            signal.signal(each, signal.SIG_IGN)
        if _sections:
            _waiting = number
        else:
            raise Interrupted(number)

    before = {each: signal.signal(each, interrupt) for each in SIGNALS}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Finish what is inside before `Interrupted` is raised.

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
