"""`python -m pipeline VERB`."""

import atexit
import importlib.util
import os
import sys
from typing import NoReturn

SYSTEMS = "pipeline: this runs on Linux, macOS and Windows' WSL (wsl --install), not on Windows itself"
if sys.platform == "win32" or importlib.util.find_spec("fcntl") is None:
    sys.exit(print(SYSTEMS, file=sys.stderr) or 2)  # before an import fails for want of what other systems have

from pipeline.account import settle  # noqa: E402
from pipeline.cli import main  # noqa: E402


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
    settle()
    leave(main())
