"""The process that delivers runs while they train: waits for news, delivers, waits again; its handles are the runs'.

It reads the folders that have news from its standard input, a line each, and learns from the end of that input that all
trainings are over, or dead.
"""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pipeline.imports import gc_paused
from pipeline.mlflow_client.tracking_uri import store_of
from pipeline.terminal.outputs import make_safe
from pipeline.terminal.shell import DONE, NOT_ALL
from pipeline.tracking.journal import RunFolder, now_ms
from pipeline.tracking.recovery import mark_if_dead
from pipeline.tracking.uploader import DELIVERING, LEFT, LOOP, note_store

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 15.0
LAST_PAUSE_S, GRACE_S = 1.0, 8.0
DYING_S, LOOK_AGAIN_S = 3.0, 0.02
INSIST, INSIST_S = "--insist", 15.0


def _log(text: str) -> None:
    """A line for the uploader's log, which may lie on a full disk; `print` would keep it and fail with it again."""
    with contextlib.suppress(OSError):
        os.write(sys.stdout.fileno(), f"{time.strftime('%H:%M:%S')} {text}\n".encode())


def _looks_alive(folder: RunFolder) -> bool:
    """Whether a run without an end is held: a killed process's input ends before the kernel lets go of its lock."""
    return folder.is_alive() and folder.ended() is None


def _has_begun(folder: RunFolder) -> bool:
    return bool(folder.started() or folder.events())


class UploadLoop:
    """The uploader's own side: deliver, wait for news, and deliver again, until all is delivered or nobody waits."""

    def __init__(self, *folders: RunFolder, since: int | None = None, as_before: bool = False) -> None:
        """Nothing is imported or sent before `run`.

        Args:
            folders: to begin with; others are named on the input.
            since: when this process began, in milliseconds; None: now.
            as_before: each run goes where it went before, whatever the environment says.
        """
        self.as_before = as_before
        self.since = now_ms() if since is None else since
        self.stores: dict[str, tuple[Any, Any]] = {}  # address -> client, what is known of the server
        self.deliveries: dict[Path, Any] = {}
        self.killed: dict[Path, RunFolder] = {}  # delivered ones that `mlflow run` has begun
        self._of_the_over = 0  # events of runs that are forgotten
        self.locks: dict[Path, FileLock] = {}
        self.trouble: dict[Path, dict[str, Any]] = {}
        self.pause_s = FIRST_PAUSE_S
        self.rested_at = 0.0
        self._got_on: tuple[float, int] | None = None  # once all trainings are over: when events last arrived, how many
        self.folders = {folder.path: folder for folder in folders}
        self.waiting = dict.fromkeys(self.folders)
        self._input = b""

    def run(self) -> int:
        """Deliver the journals as they grow; 0 when MLflow has all of them, 1 when something had to be left."""
        while self._wait_for_news():
            self._deliver()
        until = time.monotonic() + DYING_S
        for folder in self.folders.values():
            while _looks_alive(folder) and time.monotonic() < until:
                time.sleep(LOOK_AGAIN_S)
            with contextlib.suppress(OSError):  # a disk that takes no word; the next command marks it
                mark_if_dead(folder)
        self.waiting = dict.fromkeys(self.folders)
        self._got_on = time.monotonic(), self._done()
        while not self._deliver():
            if all(trouble.get("advice") for trouble in self.trouble.values()) or self._grace_is_over():
                return NOT_ALL
            time.sleep(min(self.pause_s, LAST_PAUSE_S))
        return DONE

    def _grace_is_over(self) -> bool:
        """Whether the trainings are, and for some time no event has arrived."""
        if self._got_on and self._done() > self._got_on[1]:
            self._got_on = time.monotonic(), self._done()
        return self._got_on is not None and time.monotonic() - self._got_on[0] > GRACE_S

    def _done(self) -> int:
        """How many events MLflow has."""
        return self._of_the_over + sum(int(delivery.done) for delivery in self.deliveries.values())

    def _deliver(self) -> bool:
        """Deliver what waits; returns whether it went well. Whatever goes wrong, the record is safe in its folder.

        Once a store keeps one run waiting, the others there wait without being tried; once an experiment's artifact
        store does, its other files.
        """
        silent: dict[str, Exception] = {}
        for path in self.waiting:
            with contextlib.suppress(OSError, Timeout):  # told where it is delivered
                self._hold(self.folders[path])
        for number, path in enumerate(list(self.waiting)):
            folder, began = self.folders[path], time.monotonic()
            if number and path in self.trouble and self._grace_is_over():
                continue
            try:
                if silent and (error := silent.get(self._uri_of(folder))):
                    raise error
                self._deliver_one(folder)
            except Exception as error:
                self._note_trouble(folder, error)
                if self._is_silence(error, time.monotonic() - began):
                    silent[self._uri_of(folder)] = error
            else:
                del self.waiting[path]
        self.rested_at = time.monotonic() + FIRST_PAUSE_S
        self.pause_s = min(self.pause_s * 2, LONGEST_PAUSE_S) if self.trouble else FIRST_PAUSE_S
        return not self.trouble

    def _hold(self, folder: RunFolder) -> None:
        """Be who delivers the run, and write down where it goes, whether there is an answer or not.

        Raises:
            Timeout: if another process delivers it.
        """
        path = folder.path
        if path not in self.locks:
            lock = FileLock(path / DELIVERING)
            lock.acquire(timeout=0)
            self.locks[path] = lock
        if path not in self.deliveries and _has_begun(folder):
            note_store(folder, self._uri_of(folder))

    def _deliver_one(self, folder: RunFolder) -> None:
        path = folder.path
        self._hold(folder)
        if path not in self.deliveries and _has_begun(folder):
            from pipeline.delivery.delivery import Delivery

            self.deliveries[path] = Delivery(folder, *self._store(self._uri_of(folder)))
        if delivery := self.deliveries.get(path):
            delivery.deliver()
        if self.trouble.pop(path, None):
            self._show_trouble(folder, None)
        if delivery and delivery.end:
            self._forget(folder, delivery.end)

    def _uri_of(self, folder: RunFolder) -> str:
        return store_of(folder.state(), as_before=self.as_before)

    def _store(self, uri: str) -> tuple[Any, Any]:
        """The client of the store, and what is known of it."""
        from pipeline.delivery.opening import Known
        from pipeline.mlflow_client.connection import connect

        if uri not in self.stores or len(self.stores) > 1:  # to connect is also to tell MLflow's own functions where to
            self.stores[uri] = connect(uri), self.stores.get(uri, (None, Known(self.since)))[1]
        return self.stores[uri]

    def _forget(self, folder: RunFolder, end: dict[str, Any]) -> None:
        """Keep nothing of a run that is over and delivered, thousands may come; a word of it brings it back."""
        self._of_the_over += int(self.deliveries.pop(folder.path).done)
        self.locks.pop(folder.path).release()
        self.folders.pop(folder.path, None)
        if end["status"] == "KILLED" and (folder.started() or {}).get("mlflow_run_id"):
            self.killed[folder.path] = folder

    @staticmethod
    def _in_words(error: Exception) -> str:
        if isinstance(error, Timeout):
            return "another process is delivering it"
        from pipeline.mlflow_client.errors import in_words

        return in_words(error)

    @staticmethod
    def _is_silence(error: Exception, seconds: float) -> bool:
        """Whether the store kept the run waiting for an answer, or for one that is none."""
        from pipeline.mlflow_client.errors import ToldError, is_silence

        return is_silence(error) or (seconds > GRACE_S and not isinstance(error, ToldError))

    def _note_trouble(self, folder: RunFolder, error: Exception) -> None:
        reason = self._in_words(error)
        _log(reason)
        since = self.trouble[folder.path]["since"] if folder.path in self.trouble else now_ms()
        self.trouble[folder.path] = {"since": since, "error": reason, "advice": getattr(error, "advice", "")}
        if folder.path in self.locks:  # else the state is another process' to write
            self._show_trouble(folder, self.trouble[folder.path])

    @staticmethod
    def _show_trouble(folder: RunFolder, trouble: dict[str, Any] | None) -> None:
        """Let the training see the trouble, or that it is over; a full disk must not end the uploader."""
        with contextlib.suppress(OSError):
            folder.write_state({**folder.state(), "trouble": trouble})

    def _wait_for_news(self) -> bool:
        """Wait for a line, in trouble for the pause; False at the input's end: all trainings closed it or died.

        It delivers at most twice a second: a training that logs every step has the processor to itself most of the
        time, and the next delivery takes many lines, or many small runs, at once.
        """
        until = enough = time.monotonic() + self.pause_s
        while True:
            ready, _, _ = select.select([sys.stdin.fileno()], [], [], max(0.0, enough - time.monotonic()))
            if ready:
                news = os.read(sys.stdin.fileno(), 65536)
                if not news:
                    return False
                self._take(news)
            if self.waiting and not self.trouble:
                enough = min(until, self.rested_at)
            if time.monotonic() >= enough:
                return True

    def _take(self, news: bytes) -> None:
        *lines, self._input = (self._input + news).split(b"\n")
        for line in lines:
            folder = RunFolder(json.loads(line))
            self.folders.setdefault(folder.path, folder)
            self.waiting[folder.path] = None


def main(path: str, *flags: str) -> int:
    """Be the uploader of a run folder, and of whatever folders are named to it later."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    first, since = RunFolder(path), now_ms()
    lock = _lock_of(first)
    with gc_paused():
        from pipeline.delivery import delivery  # noqa: F401
        from pipeline.mlflow_client import connection

        connection.import_store()  # before there is anything to send, while the training imports as well
    loop = UploadLoop(first, since=since, as_before=LEFT in flags)
    loop.locks.update({first.path: lock} if lock.is_locked else {})
    code = loop.run()
    for folder in loop.killed.values():
        end = folder.ended()  # it may have been resumed since
        if code == DONE and end and end["status"] == "KILLED":
            subprocess.Popen([sys.executable, "-m", LOOP, str(folder.path), INSIST], start_new_session=True)
    return code


def _lock_of(folder: RunFolder) -> FileLock:
    """The lock of who delivers the run, taken once the uploader of its former process has ended.

    At once, so that the next start sees that somebody is at it; a disk that takes no lock file is waited for later.
    """
    lock = FileLock(folder.path / DELIVERING)
    with contextlib.suppress(OSError):
        lock.acquire()
    return lock


def insist_on_killed(path: str) -> int:
    """Put KILLED back when `mlflow run` has written FAILED over it, as it does (it takes no status for terminal)."""
    from pipeline.mlflow_client.connection import connect

    folder, client = RunFolder(path), connect(store_of(RunFolder(path).state()))
    until = time.monotonic() + INSIST_S
    while (end := folder.ended()) is not None and time.monotonic() < until:
        run_id = folder.state()["run_id"]
        if client.get_run(run_id).info.status != "KILLED":
            client.set_terminated(run_id, "KILLED", end["time"])
            break
        time.sleep(FIRST_PAUSE_S)
    return DONE


if __name__ == "__main__":
    make_safe()
    raise SystemExit(insist_on_killed(sys.argv[1]) if INSIST in sys.argv else main(*sys.argv[1:]))
