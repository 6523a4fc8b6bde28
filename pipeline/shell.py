"""Commands, paths and words as a person can paste them into a shell; exit codes; who the user is."""

import getpass
import os
import shlex
from pathlib import Path

# Exit codes of every subcommand. An interruption ends with 128 + its signal.
DONE, NOT_ALL, USER_ERROR, UNREACHABLE = 0, 1, 2, 3


class UnreachableError(RuntimeError):
    """The tracking server or registry does not answer; ends as one line and exit code 3."""


def command(*words: object, **flags: object) -> str:
    """`python -m pipeline WORDS --flag value`, quoted where a shell needs it.

    Args:
        words: as they stand on the command line.
        flags: name -> value; a flag whose value is None or empty is left out. `runs_dir` is left out as well where it
            is the default's folder, seen from here.
    """
    given = {name: str(value) for name, value in flags.items() if value not in (None, "")}
    if "runs_dir" in given:
        given["runs_dir"] = shown(Path(given["runs_dir"]))
        if given["runs_dir"] == "runs":
            del given["runs_dir"]
    parts = ["python", "-m", "pipeline", *map(str, words)]
    for name, value in given.items():
        parts += [f"--{name}", value]
    return shlex.join(parts)


def shown(path: Path) -> str:
    """The path, relative to here if it lies below; for a command, where `command` quotes it."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def quoted(text: object) -> str:
    """A path, address or name for a line that is pasted."""
    return shlex.quote(str(text))


def user_name() -> str:
    """Who runs this; the number where the system knows no name (any user id in a container)."""
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return f"uid {os.getuid()}" if hasattr(os, "getuid") else "unknown"
