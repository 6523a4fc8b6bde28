"""`python -m pipeline VERB`."""

import atexit
import os
import sys
from typing import NoReturn

from pipeline.cli import main
from pipeline.outputs import make_safe, write_error
from pipeline.shell import NOT_ALL

TRAINS = ("train", "experiment")  # what they are for lies in their folder, not on the screen


def leave(code: int) -> NoReturn:
    """End the process at once: to take Lightning's and torch's objects apart one by one would take Python 0.6 s."""
    atexit._run_exitfuncs()
    sys.stdout.flush()
    if reason := write_error():
        print(f"pipeline: the output could not be written ({reason})", file=sys.stderr)
        code = code or (0 if sys.argv[1:2] and sys.argv[1] in TRAINS else NOT_ALL)
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    make_safe()
    leave(main())
