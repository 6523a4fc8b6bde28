"""Standard output and error output that cannot fail: nobody who stops to listen ends a run."""

import errno
import io
import os
import sys

_lost: list[OSError] = []


class _Deaf(io.FileIO):
    """A descriptor that is written to as long as somebody takes it, and to nobody afterwards."""

    def write(self, content: "bytes | bytearray | memoryview") -> int:  # type: ignore[override]
        """Write, or throw away; `BufferedWriter` hears that all of it was taken."""
        try:
            return super().write(content) or 0
        except BlockingIOError:
            raise
        except OSError as error:  # no reader, no terminal, no room: from now on the descriptor leads nowhere
            _lost.append(error)
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            return memoryview(content).nbytes


def make_safe() -> None:
    """Once at the start of a process: from here on no print can raise, whatever the outputs are.

    A closed descriptor (`>&-`) is opened on nothing, else the next file opened would get its number and the words
    meant for a person. What the terminal's encoding lacks is written as an escape.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    for name, number in (("stdout", 1), ("stderr", 2)):
        before = getattr(sys, name)
        if before is not None:
            before.flush()
        setattr(
            sys,
            name,
            io.TextIOWrapper(
                io.BufferedWriter(_Deaf(number, "w", closefd=False)),
                encoding=before.encoding if before is not None else "utf-8",
                errors="backslashreplace",
                line_buffering=True,  # also into a file, where both are to stand in the order in which they were said
                write_through=bool(os.environ.get("PYTHONUNBUFFERED")),
            ),
        )


def write_error() -> str:
    """Why output was lost, in words; empty if none was, or if its reader only had enough (`| head`)."""
    reasons = [error.strerror or str(error) for error in _lost if error.errno not in (errno.EPIPE, errno.EIO)]
    return reasons[0] if reasons else ""
