"""Commands, paths and words as a person can paste them into a shell; exit codes; who the user is."""

import functools
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
        flags: name -> value; a flag whose value is None or empty is left out, one that is True has none. `runs_dir` is
            left out as well where it is the default's folder, seen from here.
    """
    given = {name: str(value) for name, value in flags.items() if value not in (None, "")}
    if "runs_dir" in given:
        folder = Path.cwd() / given["runs_dir"]
        given["runs_dir"] = str(folder.relative_to(Path.cwd())) if folder.is_relative_to(Path.cwd()) else str(folder)
        if Path.cwd() / given["runs_dir"] == Path.cwd() / "runs":
            del given["runs_dir"]
    parts = ["python", "-m", "pipeline", *map(str, words)]
    for name, value in given.items():
        parts += [f"--{name}"] if flags[name] is True else [f"--{name}", value]
    elsewhere = "" if standing_here() else f"cd {quoted(Path.cwd())} && "
    return elsewhere + shlex.join(parts)


def shown(path: Path) -> str:
    """The path, absolute or, if it lies below where the user stands, from there; `command` quotes it."""
    path, standing = Path.cwd() / path, _standing()
    return str(path.relative_to(standing)) if standing and path.is_relative_to(standing) else str(path)


def home(path: str) -> str:
    """A path as typed, its `~` expanded: a shell does so only at the beginning of a word, not in `--out=~/x`."""
    return os.path.expanduser(path)  # noqa: PTH111  # a Path would drop the ./ that a user typed


def standing_here() -> bool:
    """Whether the user is known to stand in the working folder."""
    return _standing() == Path.cwd()


@functools.lru_cache
def _standing_of(cwd: Path, run_of_mlflow: bool) -> Path | None:
    if not run_of_mlflow:
        return cwd
    process = os.getppid()
    for _ in range(6):  # `mlflow run` itself is the parent, or behind a shell or two
        try:
            words = Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")
            if b"run" in words and any(word.endswith(b"mlflow") for word in words):
                return Path(f"/proc/{process}/cwd").resolve(strict=True)
            process = int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            return None
    return cwd


def _standing() -> Path | None:
    """Where the user stands: `mlflow run` starts its command in the project's folder. None: not to be known."""
    return _standing_of(Path.cwd(), "MLFLOW_RUN_ID" in os.environ)


def quoted(text: object) -> str:
    """A path, address or name for a line that is pasted."""
    return shlex.quote(str(text))


def user_name() -> str:
    """Who runs this; the number where the system knows no name (any user id in a container)."""
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return f"uid {os.getuid()}" if hasattr(os, "getuid") else "unknown"
