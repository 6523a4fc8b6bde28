"""A user without a name or a home, as any container platform makes them: what libraries ask is settled beforehand."""

import contextlib
import os
import stat
import tempfile
from pathlib import Path

from pipeline.terminal.shell import user_name


def settle() -> None:
    """Set USER where the system knows no name, HOME where it knows no home, matplotlib's folder where none is writable.

    MLflow and torch ask for the name (KeyError where there is none), MLflow for the home as it is imported
    (RuntimeError); matplotlib warns, and gathers the system's fonts anew in every process. Child processes inherit all.
    """
    if not any(os.environ.get(name) for name in ("LOGNAME", "USER", "LNAME", "USERNAME")):
        name = user_name()
        if name.startswith("uid "):
            os.environ["USER"] = name
    try:
        home = Path.home()
    except RuntimeError:
        os.environ["HOME"] = _home_of_ones_own()
        return
    if "MPLCONFIGDIR" not in os.environ and not _is_writable(Path(os.environ.get("XDG_CONFIG_HOME", home))):
        with contextlib.suppress(OSError):  # without it matplotlib takes a folder for this process alone, and says so
            os.environ["MPLCONFIGDIR"] = _home_of_ones_own()


def _is_writable(folder: Path) -> bool:
    """Whether the folder can be written, or be made."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return os.access(folder, os.W_OK)


def _home_of_ones_own() -> str:
    """A folder in the temporary folder, the same for every process."""
    folder = own_folder(Path(tempfile.gettempdir()) / f"pipeline-home-{os.getuid()}")
    return str(folder or tempfile.mkdtemp(prefix="pipeline-home-"))


def own_folder(folder: Path) -> Path | None:
    """The folder, made if it is not there, if it is this user's alone; None where somebody else has put it there."""
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError:
        return None
    is_own = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o022
    return folder if is_own else None
