"""Ctrl-C and SIGTERM as one exception."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


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
        for each in SIGNALS:
            signal.signal(each, signal.SIG_IGN)
        raise Interrupted(number)

    before = {each: signal.signal(each, interrupt) for each in SIGNALS}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
