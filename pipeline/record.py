"""A run's own folder: everything the run wants to record lies there, durably, before anyone else hears of it.

`journal.jsonl` holds one event a line, `checksum json`; a line stands once its fsync has returned, and a torn last line
(power loss, full disk) is cut off when the journal is opened again. `pipeline.delivery` carries the events to MLflow.
"""

import contextlib
import fcntl
import json
import os
import shutil
import time
import uuid
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pipeline.interrupts import uninterrupted

Event = dict[str, Any]

JOURNAL, STATE, LOCK, ARTIFACTS, CHECKPOINTS, CONFIG = (
    "journal.jsonl",
    "delivery.json",
    "lock",
    "artifacts",
    "checkpoints",
    "config.yaml",
)


class RunFolder:
    """The folder of one run and what it says of the run. Reading needs no lock; writing is `Journal`'s."""

    def __init__(self, path: Path | str) -> None:
        """Look at the folder; it need not exist."""
        self.path = Path(path)
        self.artifacts, self.checkpoints = self.path / ARTIFACTS, self.path / CHECKPOINTS

    def events(self) -> list[Event]:
        """All whole events, in order."""
        try:
            return _whole_events((self.path / JOURNAL).read_bytes())[0]
        except FileNotFoundError:
            return []

    def started(self) -> Event | None:
        """The event that opened the run."""
        return next((event for event in self.events() if event["kind"] == "start"), None)

    def ended(self) -> Event | None:
        """The event that closed the run, or None if it was never closed or resumed since."""
        last = next((event for event in reversed(self.events()) if event["kind"] in ("end", "resume")), None)
        return last if last and last["kind"] == "end" else None

    def state(self) -> dict[str, Any]:
        """What the sender has said of itself: delivered events, MLflow run id, trouble, refusals."""
        try:
            state: dict[str, Any] = json.loads((self.path / STATE).read_text())
        except (FileNotFoundError, ValueError):
            return {}
        return state

    def write_state(self, state: Mapping[str, Any]) -> None:
        """Replace the sender's state whole."""
        partial = self.path / (STATE + ".partial")
        partial.write_text(json.dumps(state))
        partial.replace(self.path / STATE)

    def is_alive(self) -> bool:
        """Whether a process on this machine holds the run."""
        try:
            with (self.path / LOCK).open("rb") as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except FileNotFoundError:
            pass
        return False


class Journal:
    """The one writer of a run's folder. Holds the folder's lock for as long as the process lives."""

    def __init__(self, folder: RunFolder) -> None:
        """Open or create the journal, cutting off a torn last line.

        Raises:
            RunIsAliveError: if another process holds the run.
        """
        self.folder = folder
        folder.path.mkdir(parents=True, exist_ok=True)
        self._lock = (folder.path / LOCK).open("wb")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            raise RunIsAliveError(f"run {folder.path} is still running in another process") from None
        self._file = os.open(folder.path / JOURNAL, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        content = (folder.path / JOURNAL).read_bytes()
        events, whole = _whole_events(content)
        os.ftruncate(self._file, whole)
        self.size = whole
        self.count = len(events)
        self.held: list[Event] = []
        self._last_time = max((event["time"] for event in events), default=0)
        self._clamp_delivered()
        self._metrics = {
            (name, event["step"]) for event in events if event["kind"] == "metrics" for name in event["values"]
        }
        sync_to_disk(folder.path)

    def append(self, kind: str, **content: Any) -> Event:
        """Write an event and wait until the disk has it; returns the event.

        Raises:
            OSError: if the disk refuses; the journal is then as it was before.
        """
        event = self._event(kind, content)
        with uninterrupted():
            self._write(event)
        return event

    def append_or_hold(self, kind: str, **content: Any) -> None:
        """Write an event, or hold it in memory until the disk takes it: a full disk is no reason to end a training."""
        self.held.append(self._event(kind, content))
        self._write_held()

    def _write_held(self) -> None:
        """Try to write what is held."""
        with contextlib.suppress(OSError):
            while self.held:
                with uninterrupted():  # else an event could be both written and held, and so be written twice
                    self._write(self.held[0])
                    self.held.pop(0)

    def _event(self, kind: str, content: dict[str, Any]) -> Event:
        """The event with its time; a clock that jumps back does not put it before its forerunners."""
        self._last_time = max(self._last_time, now_ms())
        return {"kind": kind, "time": self._last_time, **content}

    def _clamp_delivered(self) -> None:
        """Events that were cut off are delivered anew, should they come again."""
        state = self.folder.state()
        if state.get("delivered", 0) > self.count:
            self.folder.write_state({**state, "delivered": self.count})

    def _write(self, event: Event) -> None:
        text = json.dumps(event, separators=(",", ":"), allow_nan=True).encode()
        line = b"%08x %s\n" % (zlib.crc32(text), text)
        try:
            written = os.write(self._file, line)
            if written != len(line):
                raise OSError("the disk took only a part of the record")
            os.fsync(self._file)
        except OSError:
            os.ftruncate(self._file, self.size)
            raise
        self.size += len(line)
        self.count += 1

    def metrics(self, values: Mapping[str, float], step: int, time_ms: int | None = None) -> None:
        """Record the values that do not stand at this step already: a resumed epoch repeats none."""
        new = {name: value for name, value in values.items() if (name, step) not in self._metrics}
        if new:
            time = {"time": time_ms} if time_ms else {}
            self.append_or_hold("metrics", values=new, step=step, **time)
            self._metrics |= {(name, step) for name in new}

    def artifact(self, path: Path) -> None:
        """Record a file or folder below `artifacts/` that is complete."""
        for each in [path, *path.rglob("*")] if path.is_dir() else [path]:
            sync_to_disk(each)
        self.append("artifact", path=str(path.relative_to(self.folder.artifacts)))

    def close(self) -> None:
        """Give the lock back."""
        os.close(self._file)
        self._lock.close()


class RunIsAliveError(ValueError):
    """Another process is still writing this run."""


def now_ms() -> int:
    """The time of day in milliseconds, as MLflow counts it."""
    return time.time_ns() // 1_000_000


def new_folder(runs_dir: Path | str) -> RunFolder:
    """A folder name that nobody has: the time, for people, and six random digits."""
    name = time.strftime("%Y%m%d-%H%M%S-") + uuid.uuid4().hex[:6]
    return RunFolder(Path(runs_dir).absolute() / name)


def all_folders(runs_dir: Path | str) -> list[RunFolder]:
    """The folder of every run that has begun, oldest first."""
    return [RunFolder(path.parent) for path in _journals(runs_dir) if path.stat().st_size]


def never_begun(runs_dir: Path | str) -> list[RunFolder]:
    """Folders whose process died before their run began."""
    empty = [RunFolder(path.parent) for path in _journals(runs_dir) if not path.stat().st_size]
    return [folder for folder in empty if not folder.is_alive()]


def _journals(runs_dir: Path | str) -> list[Path]:
    return sorted(Path(runs_dir).absolute().glob(f"*/{JOURNAL}"))


def find_folder(runs_dir: Path | str, run: str) -> RunFolder:
    """The folder of a run: by `last`, by path, by folder name, or by MLflow run id.

    Raises:
        ValueError: if there is none, with what to type instead.
    """
    folders = all_folders(runs_dir)
    if run == "last" and folders:
        return folders[-1]
    if (Path(run) / JOURNAL).exists():
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
        f"no run {run!r} in {runs_dir}; give `last`, a run folder or an MLflow run id (newest folders there: {names})"
    )


def remove(folder: RunFolder) -> None:
    """Take away a run that never began."""
    shutil.rmtree(folder.path, ignore_errors=True)


def sync_to_disk(path: Path) -> None:
    """Wait until the file's content, or the folder's entries, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _whole_events(content: bytes) -> tuple[list[Event], int]:
    """The events up to the first line that is torn or damaged, and the number of bytes they take."""
    events: list[Event] = []
    size = 0
    for line in content.splitlines(keepends=True):
        event = _parse(line)
        if event is None:
            break
        events.append(event)
        size += len(line)
    return events, size


def _parse(line: bytes) -> Event | None:
    checksum, _, text = line.rstrip(b"\n").partition(b" ")
    if not line.endswith(b"\n") or checksum != b"%08x" % zlib.crc32(text):
        return None
    event: Event = json.loads(text)
    return event


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
