"""Handles on the process that delivers runs while they train; what it does is `delivery.upload_loop`'s.

A process of its own, so that MLflow's import and every wait for the server cost the training nothing, and so that it
outlives a training that is killed and can still tell MLflow.
"""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from pipeline.redaction import address_without_secrets
from pipeline.terminal.shell import DONE
from pipeline.tracking.journal import RunFolder

LOOP, LOG = "pipeline.delivery.upload_loop", "sender.log"
DELIVERING = "sender.lock"  # held by the process that delivers the run
DELIVERING_PATIENCE_S = 30.0  # an uploader whose training is over ends within this
KILLED_PATIENCE_S = 6.0  # so long at most does an uploader keep whoever stops a training
LEFT = "--left"  # to an uploader of what others left: each run goes where it went, not where the environment says


def importable() -> dict[str, str]:
    """The environment of a process that imports this package, from whatever folder it is started in."""
    path = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path))}


class Uploader:
    """A handle on an uploader that somebody has started: it is told of a run's news through its input.

    The runs of an experiment share one, whose input their processes inherit.
    """

    def __init__(self, folder: RunFolder, descriptor: int) -> None:
        self.folder, self.descriptor = folder, descriptor

    def notify(self) -> None:
        """Say that there is something to deliver."""
        line = json.dumps(str(self.folder.path)) + "\n"  # as JSON, as a path may hold line breaks
        with contextlib.suppress(OSError):
            os.write(self.descriptor, line.encode())  # short enough for one pipe to take from many at once, unmixed


class UploaderProcess(Uploader):
    """A handle on an uploader of one's own."""

    def __init__(self, folder: RunFolder, cwd: Path | None = None, *flags: str) -> None:
        """Start the process, which begins to import MLflow at once.

        Args:
            folder: the run's.
            cwd: where `mlflow.db` lies, if no address is given; None: in this process' working directory.
            flags: of its command line.
        """
        with (folder.path / LOG).open("ab") as log:
            self._process: subprocess.Popen[bytes] = subprocess.Popen(
                # -P: a queue.py beside the script is not ours
                [sys.executable, "-P", "-m", LOOP, str(folder.path), *flags],
                cwd=cwd,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=importable(),
                start_new_session=True,  # Ctrl-C is for the training; the uploader has to deliver the news of it
            )
        assert self._process.stdin is not None
        super().__init__(folder, self._process.stdin.fileno())
        os.set_blocking(self.descriptor, False)  # a training does not wait for an uploader that has much to do

    def wait(self, patience_s: float | None = None) -> bool:
        """Say that nothing more comes, wait for the rest to be delivered; returns whether it was.

        Args:
            patience_s: longest wait; None: as long as the uploader gets on.
        """
        self.close()
        try:
            return self._process.wait(patience_s) == DONE
        except subprocess.TimeoutExpired:
            self.kill()
            return False

    def close(self) -> None:
        """Let it deliver what is there, without waiting for it."""
        assert self._process.stdin is not None
        self.descriptor = -1
        with contextlib.suppress(OSError):
            self._process.stdin.close()

    def kill(self) -> None:
        """End the process at once; what it has not delivered stays in the folder."""
        self._process.kill()
        self._process.wait()


def deliver_in_background(folders: Iterable[RunFolder], cwd: Path | None = None) -> None:
    """Let a process for each store deliver what runs that are over have left for it."""
    of_store: dict[str, list[RunFolder]] = {}
    for folder in folders:
        of_store.setdefault(folder.state().get("tracking_uri", ""), []).append(folder)
    for first, *others in of_store.values():
        uploader = UploaderProcess(first, cwd, LEFT)
        for folder in others:
            Uploader(folder, uploader.descriptor).notify()
        uploader.close()


def note_store(folder: RunFolder, uri: str) -> None:
    """Write down where a run's record goes, before anything is sent, so that what is left of it goes nowhere else.

    Only for who holds the lock of the delivery.
    """
    state, is_whole = folder.checked_state()
    if is_whole and "tracking_uri" not in state:
        with contextlib.suppress(OSError):
            folder.write_state({**state, "tracking_uri": address_without_secrets(uri)})
