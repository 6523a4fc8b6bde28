"""What trains on a node: the experiment's worker, whose record goes to the experiment's process."""

import io
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pipeline.cluster.facts import facts
from pipeline.cluster.link import Link, Message
from pipeline.cluster.remote_journal import RemoteJournal, Unheard
from pipeline.config import RunConfig
from pipeline.data.dataset import DataError, Dataset
from pipeline.experiments.worker import Job, Worker
from pipeline.files import BEST, checkpoints_in_order
from pipeline.recording.code_digest import code_digest
from pipeline.redaction import without_secrets
from pipeline.tracking.journal import CHECKPOINTS, RunFolder
from pipeline.tracking.run import Run

LONGEST_LINE = 2000


class NodeWorker(Worker):
    """A worker in a process of Ray's. Ray calls `train` in one thread and `poll` in another.

    Attributes:
        link: what the experiment's process has not taken yet.
        scratch: where the folders of runs lie while they train; nothing in it has to survive.
    """

    def __init__(self, fetch: Callable[[Any], Any]) -> None:
        """Be ready to train.

        Args:
            fetch: gives what a reference into the object store stands for.
        """
        self.fetch = fetch
        self.link = Link()
        self.scratch = Path(tempfile.mkdtemp(prefix="pipeline-node-"))
        self.source: tuple[Any, Dataset] | None = None
        self.sent_at = 0.0
        self.sent: dict[str, int] = {}
        os.environ.pop("MLFLOW_RUN_ID", None)
        sys.stderr = Warnings(self.link)

    def poll(self, taken: int, refusal: tuple[int, str] | None = None) -> list[tuple[int, Message]]:
        return self.link.poll(taken, refusal)

    def get_ready(self) -> None:
        """Import what a training needs, then say what is here."""
        try:
            import pipeline.recording.preload  # noqa: F401

            self._say(ready=facts(), node=platform.node())
        except BaseException as error:
            self._say(ready={}, error=f"{type(error).__name__}: {error}")

    def train(self, job: Job) -> None:
        """Train one run, in whatever way it ends."""
        folder = RunFolder(self.scratch / job["name"])
        try:
            self._lay_out(folder, job["files"])
            self._train({**job, "folder": str(folder.path)})
        except BaseException as error:
            self._say(end="FAILED", reason=without_secrets(f"{type(error).__name__}: {error}"))
        finally:
            shutil.rmtree(folder.path, ignore_errors=True)

    def _lay_out(self, folder: RunFolder, files: Mapping[str, Any]) -> None:
        """The folder as the experiment's process has it, as far as a training reads it."""
        for name, content in files.items():
            path = folder.path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(memoryview(self.fetch(content)))
        self.sent_at = time.monotonic()
        self.sent = {name: _changed_at(folder.path / name) for name in files if name.startswith(CHECKPOINTS)}

    def _say(self, **news: Any) -> None:
        """Tell how it goes; of an end not before all is on the disk there."""
        if "end" in news:
            try:
                self.link.wait_until_taken()
            except OSError as error:
                news = {"end": "FAILED", "reason": f"OSError: {error}"}
        self.link.tell(**news)

    def _open(self, job: Job) -> Run:
        folder = RunFolder(job["folder"])
        return Run(RemoteJournal(folder, self.link), Unheard(folder))

    def _train_recorded(self, job: Job, run: Run) -> None:
        here = code_digest(RunConfig.from_mapping(job["config"]).own_code())
        if here != job["code"]:
            raise ValueError(f"the code on node {platform.node()} is {here}, the experiment's is {job['code']}")
        self.folder, self.every_s = run.folder, job["checkpoint_every"]
        super()._train_recorded(job, run)

    def _data(self, job: Job, config: RunConfig) -> Dataset:
        """The data, out of the object store, if they are those that the experiment's process has read.

        Raises:
            DataError: if they are others.
        """
        if self.source is None or self.source[0] != job["data"]:
            self.source = None  # the room of the one before, first
            source: Dataset = self.fetch(job["data"])
            if source.digest != job["digest"]:
                raise DataError(f"data with digest {source.digest} arrived, {job['digest']} was sent; start again")
            self.source = job["data"], source
        return self.source[1]

    def _report(self, epoch: int, metrics: dict[str, float]) -> None:
        """The epoch is over once its numbers, and its checkpoint if it is time for one, are safe."""
        if time.monotonic() - self.sent_at >= self.every_s:
            self._send_checkpoints()
        super()._report(epoch, metrics)

    def _send_checkpoints(self) -> None:
        """Send what is new of the newest checkpoint and of the best one; they take their places together."""
        folder = self.folder
        newest = checkpoints_in_order(folder.checkpoints)[-1:]
        paths = [path for path in (folder.checkpoints / BEST, *newest) if path.exists()]
        files = [(str(path.relative_to(folder.path)), path) for path in paths]
        files = [(name, path) for name, path in files if self.sent.get(name) != _changed_at(path)]
        self.sent |= {name: _changed_at(path) for name, path in files}
        try:
            if files:  # without them the epoch would be trained again, however safe its numbers were
                self.link.send_files(files)
                self.link.wait_until_taken()
        except OSError as error:  # the last one that is there stays
            print(f"warning: {folder.path.name}: a checkpoint could not be kept ({error})", file=sys.stderr)
        self.sent_at = time.monotonic()


class Warnings(io.TextIOBase):
    """The error output of a node's worker: lines that belong beside the experiment, as those of local workers do."""

    def __init__(self, link: Link) -> None:
        self.link, self._line = link, ""

    def write(self, text: str) -> int:
        *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            self.link.tell(line=line[:LONGEST_LINE])
        return len(text)


def _changed_at(path: Path) -> int:
    return path.stat().st_mtime_ns
