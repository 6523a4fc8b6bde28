"""`python -m pipeline VERB`."""

import atexit
import os
import sys
from typing import NoReturn

from pipeline.cli import main


def leave(code: int) -> NoReturn:
    """End the process at once: to take Lightning's and torch's objects apart one by one would take Python 0.6 s."""
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except BrokenPipeError:
        code = code or 1
    os._exit(code)


if __name__ == "__main__":
    leave(main())
