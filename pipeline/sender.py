"""The background process that delivers a run while it trains, and the handle that the training holds on it.

A process of its own, so that MLflow's import and every wait for the server cost the training nothing, and so that it
outlives a training that is killed and can still tell MLflow. It learns of new events by a byte on its standard input,
and that the training is over, or dead, by the end of that input.
"""

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from filelock import FileLock

from pipeline.record import RunFolder, now_ms
from pipeline.recovery import mark_if_dead

LOG, DELIVERING = "sender.log", "sender.lock"
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 15.0
LAST_PAUSE_S, GRACE_S = 1.0, 8.0
INSIST, INSIST_S = "--insist", 15.0


class Sender:
    """The training's handle on its sender."""

    def __init__(self, folder: RunFolder) -> None:
        """Start the process; it begins to import MLflow at once."""
        self.folder = folder
        package_home = str(Path(__file__).parent.parent)
        path = os.pathsep.join(filter(None, [package_home, os.environ.get("PYTHONPATH")]))
        with (folder.path / LOG).open("ab") as log:
            self._process: subprocess.Popen[bytes] = subprocess.Popen(
                [sys.executable, "-m", "pipeline.sender", str(folder.path)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env={**os.environ, "PYTHONPATH": path},
                start_new_session=True,  # Ctrl-C is for the training; the sender has to deliver the news of it
            )

    def poke(self) -> None:
        """Say that there is something to deliver."""
        with contextlib.suppress(OSError):
            assert self._process.stdin is not None
            self._process.stdin.write(b".")
            self._process.stdin.flush()

    def finish(self, patience_s: float | None = None) -> bool:
        """Say that nothing more comes, wait for the rest to be delivered; returns whether it was.

        Args:
            patience_s: longest wait; None: as long as the sender gets on.
        """
        self.let_go()
        try:
            return self._process.wait(patience_s) == 0
        except subprocess.TimeoutExpired:
            self.abandon()
            return False

    def let_go(self) -> None:
        """Let it deliver what is there, without waiting for it."""
        with contextlib.suppress(OSError):
            assert self._process.stdin is not None
            self._process.stdin.close()

    def abandon(self) -> None:
        """End the process at once; what it has not delivered stays in the folder."""
        self._process.kill()
        self._process.wait()


class Sending:
    """The sender's own side: deliver, wait for news, and deliver again, until all is delivered or nobody waits."""

    def __init__(self, folder: RunFolder) -> None:
        """Nothing is imported or sent before `run`."""
        self.folder = folder
        self.delivery: Any = None
        self.trouble: dict[str, Any] | None = None
        self.pause_s = FIRST_PAUSE_S

    def run(self) -> int:
        """Deliver the journal as it grows; 0 when MLflow has all of it, 1 when something had to be left."""
        while self._wait_for_news():
            self._deliver()
        mark_if_dead(self.folder)
        owner_left_at = time.monotonic()
        while not self._deliver():
            if time.monotonic() - owner_left_at > GRACE_S:
                return 1
            time.sleep(min(self.pause_s, LAST_PAUSE_S))
        return 0

    def _deliver(self) -> bool:
        """Deliver what waits; returns whether it went well. Whatever goes wrong, the record is safe in the folder."""
        try:
            if not self.folder.events():
                return True
            self._connected().deliver()
            if self.trouble:
                self._note(None)
            self.pause_s = FIRST_PAUSE_S
        except Exception as error:
            reason = self._in_words(error)
            print(time.strftime("%H:%M:%S"), reason, flush=True)
            self._note({"since": self.trouble["since"] if self.trouble else now_ms(), "error": reason})
            self.pause_s = min(self.pause_s * 2, LONGEST_PAUSE_S)
        return self.trouble is None

    def _connected(self) -> Any:
        if self.delivery is None:
            from pipeline.delivery import Delivery, connect

            self.delivery = Delivery(self.folder, connect())
        return self.delivery

    @staticmethod
    def _in_words(error: Exception) -> str:
        from pipeline.delivery import in_words

        return in_words(error)

    def _note(self, trouble: dict[str, Any] | None) -> None:
        """Let the training see the trouble, or that it is over; a full disk must not end the sender."""
        self.trouble = trouble
        with contextlib.suppress(OSError):
            self.folder.write_state({**self.folder.state(), "trouble": trouble})

    def _wait_for_news(self) -> bool:
        """Wait for a byte, in trouble for the pause; False at the input's end: the training closed it or died."""
        until = time.monotonic() + self.pause_s
        while True:
            ready, _, _ = select.select([sys.stdin.fileno()], [], [], max(0.0, until - time.monotonic()))
            if ready and not os.read(sys.stdin.fileno(), 4096):
                return False
            if not self.trouble or time.monotonic() >= until:
                return True


def main(path: str) -> int:
    """Be the sender of a run folder."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    folder = RunFolder(path)
    with FileLock(folder.path / DELIVERING):
        from pipeline import delivery  # noqa: F401  # MLflow's import: begin it before there is anything to send

        code = Sending(folder).run()
    start, end = folder.started(), folder.ended()
    if code == 0 and start and start["mlflow_run_id"] and end and end["status"] == "KILLED":
        subprocess.Popen([sys.executable, "-m", "pipeline.sender", path, INSIST], start_new_session=True)
    return code


def insist_on_killed(path: str) -> int:
    """Put KILLED back when `mlflow run` has written FAILED over it, as it does (it takes no status for terminal)."""
    from pipeline.delivery import connect

    folder, client = RunFolder(path), connect()
    until = time.monotonic() + INSIST_S
    while (end := folder.ended()) is not None and time.monotonic() < until:
        run_id = folder.state()["run_id"]
        if client.get_run(run_id).info.status != "KILLED":
            client.set_terminated(run_id, "KILLED", end["time"])
            break
        time.sleep(FIRST_PAUSE_S)
    return 0


if __name__ == "__main__":
    raise SystemExit(insist_on_killed(sys.argv[1]) if INSIST in sys.argv else main(sys.argv[1]))
