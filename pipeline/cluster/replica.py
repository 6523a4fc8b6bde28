"""The run's folder in the experiment's process: what a node says is written there, as a local run writes it."""

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline import divergence
from pipeline.cluster.link import Message
from pipeline.files import BEST, KEPT, checkpoints_in_order, is_whole_archive, sync_to_disk
from pipeline.recording.record import forget_checkpoints, open_journal
from pipeline.tracking.folders import remove
from pipeline.tracking.journal import CHECKPOINTS, CONFIG, JOURNAL, VITAL, RunFolder
from pipeline.tracking.lines import Event
from pipeline.tracking.uploader import Uploader
from pipeline.values import counted


class Replica:
    """A run's folder while the run trains elsewhere. Holds its lock, and tells the uploader."""

    def __init__(self, folder: RunFolder, uploader: Uploader, environment: Mapping[str, Any]) -> None:
        """Open the folder.

        Args:
            folder: the run's.
            uploader: what delivers it.
            environment: what stands in the event that opens the run whatever the node says of it.

        Raises:
            ValueError: if it cannot be written, or another process holds it.
        """
        self.folder, self.uploader, self.environment = folder, uploader, environment
        self.journal = open_journal(folder)
        self._has_ended = False  # an end from before this worker went on with the run is none

    def to_go_on_with(self) -> dict[str, Path]:
        """What another node needs to go on with the run, by its name in the folder."""
        if not self.journal.count:
            return {}
        names = [JOURNAL, VITAL, CONFIG, f"{CHECKPOINTS}/{BEST}"]
        paths = [self.folder.path / name for name in names]
        newest = next(
            (path for path in reversed(checkpoints_in_order(self.folder.checkpoints)) if is_whole_archive(path)), None
        )
        return {str(path.relative_to(self.folder.path)): path for path in (*paths, newest) if path and path.exists()}

    def take(self, message: Message) -> None:
        """Write what a message holds; it is on the disk when this returns.

        Raises:
            OSError: if the disk refuses a file. Events wait in memory then, as those of local runs do.
        """
        for name, offset, data in message.get("pieces", ()):
            partial = self._partial(name)
            partial.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("r+b" if offset else "wb") as file:
                file.seek(offset)
                file.write(data)
        self._place(message.get("place", ()))
        if event := message.get("event"):
            self._append(event)

    def _partial(self, name: str) -> Path:
        path = (self.folder.path / f"{name}.partial").resolve()
        if not path.is_relative_to(self.folder.path.resolve()):
            raise ValueError(f"a node sent {name!r}, which leads out of the run's folder")
        return path

    def _place(self, names: list[str]) -> None:
        """Let files that have come whole take their places, and drop the checkpoints that they make old."""
        for name in names:
            sync_to_disk(self._partial(name))
        for name in names:
            self._partial(name).replace(self.folder.path / name)
        for folder in {(self.folder.path / name).parent for name in names}:
            sync_to_disk(folder)
        if any(name.startswith(CHECKPOINTS) for name in names):
            for old in checkpoints_in_order(self.folder.checkpoints)[:-KEPT]:
                old.unlink()

    def _append(self, event: Event) -> None:
        content = {name: value for name, value in event.items() if name not in ("kind", "n")}
        if event["kind"] == "start":
            content |= self.environment
        if event["kind"] == "removal":
            with contextlib.suppress(OSError):
                (self.folder.artifacts / event["path"]).unlink()
        self.journal.append_or_hold(event["kind"], **content)
        self._has_ended = event["kind"] == "end"
        self.uploader.notify()

    def end(self, status: str, reason: str) -> None:
        """Close the record of a run whose node can or may not do it; what never began is removed."""
        if self.journal.count and not self.journal.is_closed:
            self.journal.append_or_hold("end", status=status, tags={"failure_reason": reason})
            self.uploader.notify()

    def ended(self) -> tuple[str, str] | None:
        """The status with which the node has closed the record, and the reason; None if it has not."""
        end = self.folder.ended() if self._has_ended and not self.journal.held else None
        if end is None:
            return None
        diverged = end["status"] == "FAILED" and divergence.recorded(self.folder.events())
        return "DIVERGED" if diverged else end["status"], end["tags"].get("failure_reason", "")

    def close(self) -> str:
        """Give the folder's lock back; returns what the disk did not take, or nothing."""
        held, count = len(self.journal.held), self.journal.count
        self.journal.close()
        forget_checkpoints(self.folder)
        if not count and not held:
            remove(self.folder)
        return f"no space left on the disk of {self.folder.path}: {counted(held, 'record', 'are')} lost" if held else ""
