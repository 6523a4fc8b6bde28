"""The folders of runs side by side: named, put in the order in which the runs began, found; copies told from originals.

What lies in one such folder, and how it is written, is `pipeline.tracking.journal`'s.
"""

import contextlib
import os
import re
import shutil
import sys
import time
import uuid
from collections.abc import Iterable
from pathlib import Path

from pipeline.terminal.shell import command
from pipeline.tracking import lines
from pipeline.tracking.journal import CHECKPOINTS, CONFIG, JOURNAL, LOCK, STATE, VITAL, RunFolder, now_ms
from pipeline.tracking.lines import LOST, Event
from pipeline.values import short

_TIME = re.compile(rb'"time":(\d{1,15})')
_last_name_ms = 0
_told: set[str] = set()


def new_folder(runs_dir: Path | str) -> RunFolder:
    """A folder name that nobody has: the time in UTC, for people, and six random digits.

    Names sort as their runs began, over time zones and daylight saving, and so do those of one process within a
    millisecond.
    """
    global _last_name_ms
    _last_name_ms = max(_last_name_ms + 1, now_ms())
    seconds, milliseconds = divmod(_last_name_ms, 1000)
    time_of_day = time.strftime("%Y%m%d-%H%M%S", time.gmtime(seconds))
    return RunFolder(Path(runs_dir).absolute() / f"{time_of_day}-{milliseconds:03d}Z-{uuid.uuid4().hex[:6]}")


def all_folders(runs_dir: Path | str) -> list[RunFolder]:
    """The folder of every run that has begun and that this user may read, in the order in which they began."""
    found: list[tuple[float, str, RunFolder]] = []
    others: list[Path] = []
    for path in _paths(runs_dir):
        try:
            if (began := _began(path)) is not None:
                found.append((began, path.name, RunFolder(path)))
        except PermissionError:
            others.append(path)
        except OSError as error:
            tell_once(f"{path} is passed over: {error.strerror}")
    if others:
        names = ", ".join(path.name for path in others[:3]) + (", ..." if len(others) > 3 else "")
        tell_once(f"{len(others)} of {runs_dir} passed over, which this user may not read: {names}")
    return [folder for _, _, folder in sorted(found, key=lambda each: each[:2])]


def never_begun(runs_dir: Path | str) -> list[RunFolder]:
    """Folders whose process died before their run began: a journal without content, and nothing that a run leaves."""
    empty = []
    for path in _paths(runs_dir):
        with contextlib.suppress(OSError):
            if (path / JOURNAL).exists() and _began(path) is None and not RunFolder(path).is_alive():
                empty.append(RunFolder(path))
    return empty


def _paths(runs_dir: Path | str) -> list[Path]:
    try:
        with os.scandir(Path(runs_dir).absolute()) as entries:
            return sorted(Path(entry.path) for entry in entries if entry.is_dir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        tell_once(f"{runs_dir} cannot be read ({error.strerror}): its runs are passed over")
        return []


def _began(path: Path) -> float | None:
    """When the run of the folder began, in milliseconds; None if it never did. Reads one line, unless that is lost."""
    for name in (JOURNAL, VITAL):
        with contextlib.suppress(FileNotFoundError), (path / name).open("rb") as file:
            if line := file.readline():
                time_ms = _TIME.search(line) if lines.parse(line[:-1]) or name == VITAL else None
                return float(time_ms[1]) if time_ms else _began_about(path)
    left = (STATE, CONFIG, CHECKPOINTS)
    was_run = (path / LOCK).exists() and any((path / name).exists() for name in left)
    return _began_about(path) if was_run else None


def _began_about(path: Path) -> float:
    """The time of the first event that can be read; without any, when the folder was last changed."""
    times = (event["time"] for event in RunFolder(path).events() if event["kind"] != LOST)
    return float(next(times, path.stat().st_mtime_ns // 1_000_000))


def find_folder(runs_dir: Path | str, run: str) -> RunFolder:
    """The folder of a run: by `last` (begun last, and this user's to write), by path, name, or MLflow run id.

    Raises:
        ValueError: if there is none, with what to type instead.
    """
    folders = all_folders(runs_dir)
    if run == "last" and folders:
        return _last(folders)
    is_there, reason = _is_run(Path(run))
    if is_there:
        return RunFolder(Path(run).absolute())
    for folder in folders:
        if run and run in (
            folder.path.name,
            folder.state().get("run_id"),
            (folder.started() or {}).get("mlflow_run_id"),
        ):
            return folder
    names = ", ".join(folder.path.name for folder in folders[-5:]) or "none"
    raise ValueError(
        f"no run {short(repr(run))} in {runs_dir}{reason}; give `last`, a run folder or an MLflow run id "
        f"(newest folders there: {names})"
    )


def _is_run(path: Path) -> tuple[bool, str]:
    """Whether there is a record at the path, and in brackets why that cannot be told, if it cannot."""
    reason = ""
    for name in (JOURNAL, VITAL):
        try:
            with (path / name).open("rb"):
                return True, ""
        except (FileNotFoundError, NotADirectoryError, ValueError):  # the last: a name that no file can have
            continue
        except OSError as error:
            reason = f" ({error.strerror})"
    return False, reason


def _last(folders: list[RunFolder]) -> RunFolder:
    """The one that began last; a copy, and what another user alone may write, only if there is nothing else."""
    own = [folder for folder in folders if os.access(folder.path, os.W_OK)] or folders
    return next((folder for folder in reversed(own) if original_of(folder) is None), own[-1])


def original_of(folder: RunFolder) -> RunFolder | None:
    """The folder beside this one that holds the run which this one is a copy of, or None if this one is the run."""
    beside = [RunFolder(path) for path in _paths(folder.path.absolute().parent)]
    return copies(beside).get(folder.path.absolute())


def copies(folders: Iterable[RunFolder]) -> dict[Path, RunFolder]:
    """Path of a copy -> the folder among these that holds its run.

    The run is where it was begun; if no folder has that name any more, it is the one with the most records.
    """
    of_one_run: dict[str, list[tuple[bool, RunFolder]]] = {}
    for folder in folders:
        with contextlib.suppress(OSError):
            start = folder.started() or {}
            key = folder.state().get("elsewhere", {}).get("run_key") or start.get("run_key")
            if key:
                is_home = Path(start.get("folder", "")).name == folder.path.name
                of_one_run.setdefault(key, []).append((is_home, folder))
    found: dict[Path, RunFolder] = {}
    for same in of_one_run.values():
        if len(same) > 1:
            rank = {each.path: (home, len(each.events()), -len(each.path.name)) for home, each in same}
            original = max((each for _, each in same), key=lambda each: rank[each.path])
            found |= {each.path: original for _, each in same if each is not original}
    return found


def refusal_of_copy(folder: RunFolder, original: RunFolder) -> str:
    """Why nothing is done with a copy, and what to do."""
    return (
        f"{folder.path.name} is a copy of {original.path.name} beside it: one run, which only one folder can go on "
        f"with and deliver. Remove it, or make it a run of its own: "
        f"{command('sync', folder.path.name, '--as-new', runs_dir=folder.path.parent)}"
    )


def tell_once(words: str) -> None:
    """A line on the error output, once in the life of the process."""
    if words not in _told:
        _told.add(words)
        print(words, file=sys.stderr, flush=True)


def remove(folder: RunFolder) -> None:
    """Take away a run that never began."""
    shutil.rmtree(folder.path, ignore_errors=True)


def values_of(events: Iterable[Event]) -> dict[str, dict[int, float]]:
    """Metric name -> step -> value."""
    values: dict[str, dict[int, float]] = {}
    for event in events:
        if event["kind"] == "metrics":
            for name, value in event["values"].items():
                values.setdefault(name, {})[event["step"]] = value
    return values


def data_digest(events: Iterable[Event]) -> str | None:
    """The digest of the data that the run trains on; None before it has looked at them."""
    dataset = next((event for event in events if event["kind"] == "dataset"), None)
    return str(dataset["inputs"][0]["dataset"]["digest"]) if dataset else None
