"""Handles on the process that delivers runs while they train; what it does is `delivery.upload_loop`'s.

A process of its own, so that MLflow's import and every wait for the server cost the training nothing, and so that it
outlives a training that is killed and can still tell MLflow. One run has one; the runs of an experiment share one,
whose input their processes inherit.
"""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from pipeline.tracking.journal import RunFolder

LOOP, LOG = "pipeline.delivery.upload_loop", "sender.log"


def importable() -> dict[str, str]:
    """The environment of a process that imports this package, from whatever folder it is started in."""
    path = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path))}


class Uploader(Protocol):
    """What a run asks of whoever delivers it."""

    def notify(self) -> None:
        """Say that there is something to deliver."""


class UploaderProcess:
    """A handle on an uploader of one's own."""

    def __init__(self, folder: RunFolder, cwd: Path | None = None) -> None:
        """Start the process, which begins to import MLflow at once.

        Args:
            folder: the run's.
            cwd: where `mlflow.db` lies, if no address is given; None: in this process' working directory.
        """
        self.folder = folder
        with (folder.path / LOG).open("ab") as log:
            self._process: subprocess.Popen[bytes] = subprocess.Popen(
                [sys.executable, "-P", "-m", LOOP, str(folder.path)],  # -P: a queue.py beside the script is not ours
                cwd=cwd,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=importable(),
                start_new_session=True,  # Ctrl-C is for the training; the uploader has to deliver the news of it
            )
        os.set_blocking(self.descriptor, False)  # a training does not wait for an uploader that has much to do

    @property
    def descriptor(self) -> int:
        """Where the process' input can be written; for other processes to inherit."""
        assert self._process.stdin is not None
        return self._process.stdin.fileno()

    def notify(self) -> None:
        with contextlib.suppress(OSError):
            _tell(self.descriptor, self.folder)

    def wait(self, patience_s: float | None = None) -> bool:
        """Say that nothing more comes, wait for the rest to be delivered; returns whether it was.

        Args:
            patience_s: longest wait; None: as long as the uploader gets on.
        """
        self.close()
        try:
            return self._process.wait(patience_s) == 0
        except subprocess.TimeoutExpired:
            self.kill()
            return False

    def close(self) -> None:
        """Let it deliver what is there, without waiting for it."""
        with contextlib.suppress(OSError):
            assert self._process.stdin is not None
            self._process.stdin.close()

    def kill(self) -> None:
        """End the process at once; what it has not delivered stays in the folder."""
        self._process.kill()
        self._process.wait()


class SharedUploader:
    """A handle on the uploader of an experiment, in the process of one of its runs."""

    def __init__(self, folder: RunFolder, descriptor: int) -> None:
        """Tell of the folder's news through the inherited input of the uploader."""
        self.folder, self.descriptor = folder, descriptor

    def notify(self) -> None:
        with contextlib.suppress(OSError):
            _tell(self.descriptor, self.folder)


def deliver_in_background(folders: Sequence[RunFolder]) -> None:
    """Let one process deliver what runs that are over have left."""
    if folders:
        uploader = UploaderProcess(folders[0])
        for folder in folders[1:]:
            SharedUploader(folder, uploader.descriptor).notify()
        uploader.close()


def _tell(descriptor: int, folder: RunFolder) -> None:
    line = json.dumps(str(folder.path)) + "\n"  # as JSON, as a path may hold line breaks
    os.write(descriptor, line.encode())  # short enough for one pipe to take from many at once, unmixed
