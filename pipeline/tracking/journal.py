"""A run's own folder: everything the run wants to record lies there, durably, before anyone else hears of it.

`journal.jsonl` holds one event a line; a line stands once its fsync has returned, and a torn last line (power loss,
full disk) is cut off when the journal is opened again. A line that was damaged later stays and costs its own event.
What the run is and how it ended stands in `vital.jsonl` once more. `pipeline.delivery` carries the events to MLflow.
"""

import contextlib
import fcntl
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.files import replaced_whole, sync_to_disk
from pipeline.signals import uninterrupted
from pipeline.tracking import lines
from pipeline.tracking.lines import LOST, Event

JOURNAL, VITAL, STATE, LOCK = "journal.jsonl", "vital.jsonl", "delivery.json", "lock"
ARTIFACTS, CHECKPOINTS, CONFIG = "artifacts", "checkpoints", "config.yaml"
TWICE = ("start", "resume", "end")  # what vital.jsonl holds as well
ENDS_BYTES = 1 << 16


class RunFolder:
    """The folder of one run and what it says of the run. Reading needs no lock; writing is `Journal`'s."""

    def __init__(self, path: Path | str) -> None:
        """Look at the folder; it need not exist."""
        self.path = Path(path)
        self.artifacts, self.checkpoints = self.path / ARTIFACTS, self.path / CHECKPOINTS

    def events(self) -> list[Event]:
        """All events, in order; one that is damaged or missing leaves a placeholder of kind `lost`."""
        return self.read()[0]

    def read(self) -> tuple[list[Event], int]:
        """All events, and the bytes of the journal up to a torn last line."""
        vital = lines.bytes_of(self.path / VITAL)  # first: it never knows more than the journal then, if that is whole
        return lines.read(lines.bytes_of(self.path / JOURNAL), lines.whole(vital))

    def started(self) -> Event | None:
        """The event that opened the run; None if none did, or if it is damaged beyond recovery."""
        first = lines.parse(lines.bytes_of(self.path / JOURNAL, end=ENDS_BYTES).partition(b"\n")[0])
        if first and first["kind"] == "start":
            return first
        return next((event for event in self.events() if event["kind"] == "start"), None)

    def ended(self) -> Event | None:
        """The event that closed the run, or None if it was never closed or resumed since."""
        last = self._last()
        twice = lines.whole(lines.bytes_of(self.path / VITAL))  # it may know of a resumption that the journal has lost
        if last is None or last["kind"] != "end" or twice[-1:] != [last]:
            last = next((event for event in reversed(self.events()) if event["kind"] in ("end", "resume")), None)
        return last if last and last["kind"] == "end" else None

    def count(self) -> int:
        """The number of events, as the last one says it; they are counted only where that cannot be read."""
        last = self._last()
        return last["n"] + 1 if last and type(last.get("n")) is int else len(self.events())

    def _last(self) -> Event | None:
        tail = lines.bytes_of(self.path / JOURNAL, end=-ENDS_BYTES)
        return lines.parse(tail[:-1].rpartition(b"\n")[2]) if tail.endswith(b"\n") else None

    def end_is_unknown(self) -> bool:
        """Whether the run may have ended in records that are lost: then nobody can say that it died."""
        events = self.events()
        is_lost = bool(events) and events[-1]["kind"] == LOST and events[-1]["was"] in ("", "end")
        return is_lost or len(events) < self.state().get("delivered", 0)

    def state(self) -> dict[str, Any]:
        """What the uploader has said of itself: delivered events, MLflow run id, trouble, refusals.

        Damaged, it is empty: the run is then found by its key, and what MLflow has it takes no second time.
        """
        return self.checked_state()[0]

    def checked_state(self) -> tuple[dict[str, Any], bool]:
        """The state, and whether the file is as it was written (or was never written)."""
        try:
            content = (self.path / STATE).read_bytes()
        except FileNotFoundError:
            return {}, True
        except OSError:
            return {}, False
        return lines.read_state(content)

    def write_state(self, state: Mapping[str, Any]) -> None:
        """Replace the uploader's state whole."""
        with replaced_whole(self.path / STATE) as partial:
            partial.write_bytes(lines.state_content(state))

    def is_alive(self) -> bool:
        """Whether a process on this machine holds the run, as far as this user may know."""
        return self.is_locked(LOCK)

    def is_locked(self, name: str) -> bool:
        """Whether a process on this machine holds that lock of the folder, as far as this user may know."""
        try:
            with (self.path / name).open("rb") as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            return True
        except (FileNotFoundError, NotADirectoryError):
            pass
        return False


class Journal:
    """The one writer of a run's folder. Holds the folder's lock for as long as the process lives."""

    def __init__(self, folder: RunFolder) -> None:
        """Open or create the journal, cutting off a torn last line. A new folder is for its owner's eyes only.

        Raises:
            RunIsAliveError: if another process holds the run.
            OSError: if the folder cannot be written.
        """
        self.folder = folder
        self.held: list[Event] = []
        folder.path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            folder.path.mkdir(mode=0o700)
            with contextlib.suppress(PermissionError):  # a runs_dir that may be written and not read
                sync_to_disk(folder.path.parent)
        self.acquire()

    def acquire(self) -> None:
        """Take the lock, and read what the folder holds.

        Raises:
            RunIsAliveError: if another process holds the run.
        """
        self._lock = os.open(self.folder.path / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._open()
        except BaseException as error:
            os.close(self._lock)
            self._lock = -1
            if isinstance(error, BlockingIOError):
                raise RunIsAliveError(f"run {self.folder.path} is still running in another process") from None
            raise

    def _open(self) -> None:
        self._file = os.open(self.folder.path / JOURNAL, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        events, self.size = self.folder.read()
        os.ftruncate(self._file, self.size)
        self.count = len(events)
        self._last_time = max((event["time"] for event in events), default=0)
        self.is_closed = self.folder.ended() is not None
        self._make_whole(events)
        self._clamp_delivered()
        self._before = lines.steps_of(events)
        sync_to_disk(self.folder.path)

    def _make_whole(self, events: list[Event]) -> None:
        """Give a last line its line break back, and a journal that was cut the records that stand elsewhere."""
        content = lines.bytes_of(self.folder.path / JOURNAL)
        if content and not content.endswith(b"\n"):
            os.write(self._file, b"\n")
            self.size += 1
        for event in events[len(lines.read(content)[0]) :]:
            self.size += os.write(self._file, lines.line_of(event))

    def append(self, kind: str, **content: Any) -> Event:
        """Write an event and wait until the disk has it; returns the event.

        Raises:
            OSError: if the disk refuses; the journal is then as it was before.
        """
        with uninterrupted():
            self._write(event := self._event(kind, content))
            self._note_end(kind)
        return event

    def append_or_hold(self, kind: str, **content: Any) -> None:
        """Write an event, or hold it in memory until the disk takes it: a full disk is no reason to end a training.

        Raises:
            TypeError, ValueError: if JSON does not take the content; nothing is written or held then.
        """
        with uninterrupted():  # else an event could be both written and held, and so be written twice
            event = self._event(kind, content)
            if self.held:
                lines.line_of(event)  # raises now, and not when its turn comes
                self.held.append(event)
                self.write_held()
            else:
                try:
                    self._write(event)
                except OSError:
                    self.held.append(event)
            self._note_end(kind)

    def write_held(self) -> None:
        """Write what is held, as far as the disk takes it now."""
        with contextlib.suppress(OSError):
            while self.held:
                self._write(self.held[0])
                self.held.pop(0)

    def _event(self, kind: str, content: dict[str, Any]) -> Event:
        """The event with its time; a clock that jumps back does not put it before its forerunners."""
        self._last_time = max(self._last_time, now_ms())
        if kind == "start":
            content["folder"] = str(self.folder.path.absolute())
        return {"kind": kind, "time": self._last_time, **content}

    def _note_end(self, kind: str) -> None:
        self.is_closed = kind == "end" or (self.is_closed and kind != "resume")

    def _clamp_delivered(self) -> None:
        """Events that were cut off are delivered anew, should they come again."""
        state = self.folder.state()
        if state.get("delivered", 0) > self.count:
            self.folder.write_state({**state, "delivered": self.count})

    def _write(self, event: Event) -> None:
        event["n"] = self.count
        line = lines.line_of(event)
        try:
            written = os.write(self._file, line)
            if written != len(line):
                raise OSError("the disk took only a part of the record")
            self._sync(self._file)
        except OSError:
            os.ftruncate(self._file, self.size)
            raise
        self.size += len(line)
        self.count += 1
        if event["kind"] in TWICE:
            self._write_twice(line)

    def _write_twice(self, line: bytes) -> None:
        """Once more, elsewhere; a disk that is full just now has taken it once, which is enough."""
        with contextlib.suppress(OSError):
            twice = os.open(self.folder.path / VITAL, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
            try:
                os.write(twice, line)
                self._sync(twice)
            finally:
                os.close(twice)

    def _sync(self, file: int) -> None:
        os.fsync(file)

    def metrics(
        self, values: Mapping[str, float], step: int, time_ms: int | None = None, not_finite: Mapping[str, float] = {}
    ) -> None:
        """Record the values that did not stand at this step before the journal was opened: a resumed run repeats none.

        Each that stood is one: where the step is an epoch, it has many.

        Args:
            values: for MLflow.
            not_finite: NaN and infinities that are kept here, and not for MLflow.
            time_ms: when they were measured; None: now.
        """
        apart = {name: value for name, value in not_finite.items() if not lines.takes_one(self._before, name, step)}
        new = {name: value for name, value in values.items() if not lines.takes_one(self._before, name, step)}
        if new or apart:
            more = {**({"time": time_ms} if time_ms else {}), **({"not_finite": apart} if apart else {})}
            self.append_or_hold("metrics", values=new, step=step, **more)

    def artifact(self, path: Path, source: str = "") -> None:
        """Record a file or folder below `artifacts/` that is complete, and where it was taken from, if it was."""
        inside = path.rglob("*") if path.is_dir() else ()
        above = (self.folder.path / each for each in path.relative_to(self.folder.path).parents)
        for each in (path, *inside, *above):
            sync_to_disk(each)
        more = {"source": source} if source else {}
        self.append("artifact", path=str(path.relative_to(self.folder.artifacts)), **more)

    def forget_before(self) -> None:
        """Take every value from now on: what stands was recorded by the very run that goes on, not by one before."""
        self._before.clear()

    @property
    def is_held(self) -> bool:
        """Whether the folder's lock is held here."""
        return self._lock >= 0

    def close(self) -> None:
        """Give the lock back."""
        os.close(self._file)
        os.close(self._lock)
        self._file = self._lock = -1


class RunIsAliveError(ValueError):
    """Another process is still writing this run."""


def now_ms() -> int:
    """The time of day in milliseconds, as MLflow counts it."""
    return time.time_ns() // 1_000_000
