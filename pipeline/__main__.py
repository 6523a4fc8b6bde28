"""`python -m pipeline VERB`."""

import atexit
import os
import sys
from typing import NoReturn

from pipeline.interrupts import Interrupted, interruptions, uninterrupted

OWN_SIGNALS = "serve"  # uvicorn's: answers under way are given first


def leave(code: int) -> NoReturn:
    """End the process at once: to take Lightning's and torch's objects apart one by one would take Python 0.6 s."""
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except BrokenPipeError:
        code = code or 1
    os._exit(code)


def run() -> NoReturn:
    """The verb, with signals heard from the first import to the last line."""
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
    run()
