"""`python -m pipeline SUBCOMMAND`."""

import atexit
import importlib.util
import os
import sys
from typing import NoReturn

from pipeline.terminal.shell import DONE, NOT_ALL, USER_ERROR

SYSTEMS = "pipeline: this runs on Linux, macOS and Windows' WSL (wsl --install), not on Windows itself"
if sys.platform == "win32" or importlib.util.find_spec("fcntl") is None:
    print(SYSTEMS, file=sys.stderr)
    sys.exit(USER_ERROR)  # before an import fails for want of what other systems have

from pipeline.signals import Interrupted, interruptions, uninterrupted  # noqa: E402
from pipeline.terminal.account import settle  # noqa: E402
from pipeline.terminal.outputs import make_safe, write_error  # noqa: E402

OWN_SIGNALS = "serve"  # uvicorn's: answers under way are given first
TRAINS = ("train", "experiment")  # what they are for lies in their folder, not on the screen


def leave(code: int) -> NoReturn:
    """End the process at once: to take Lightning's and torch's objects apart one by one would take Python 0.6 s."""
    atexit._run_exitfuncs()
    sys.stdout.flush()
    if reason := write_error():
        print(f"pipeline: the output could not be written ({reason})", file=sys.stderr)
        code = code or (DONE if sys.argv[1:2] and sys.argv[1] in TRAINS else NOT_ALL)
    sys.stderr.flush()
    os._exit(code)


def run() -> NoReturn:
    """The subcommand, with signals heard from the first import to the last line."""
    if OWN_SIGNALS in sys.argv[1:2]:
        from pipeline.cli import main

        leave(main())
    with interruptions():
        try:
            from pipeline.cli import main

            code = main()
        except Interrupted as interruption:
            code = interruption.exit_code
        with uninterrupted():
            leave(code)


if __name__ == "__main__":
    make_safe()
    settle()
    run()
