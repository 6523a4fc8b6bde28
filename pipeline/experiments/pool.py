"""Worker processes that train an experiment's runs, several at a time, and what is heard of them.

They are forked from one process that has imported what a training needs, so that they are there at once and share it.
"""

import contextlib
import itertools
import multiprocessing
import os
import selectors
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any

from pipeline.data.dataset import Dataset
from pipeline.experiments.trial import Data, Trial, data_of
from pipeline.signals import Interrupted
from pipeline.tracking import recovery
from pipeline.tracking.folders import new_folder
from pipeline.tracking.journal import RunFolder
from pipeline.tracking.uploader import UploaderProcess, importable

STOPPING_S = 8.0
THREADS = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
# A fork of a process with Apple's frameworks loaded may not use them.
CONTEXT: Any = multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")
CONTEXT.set_forkserver_preload(["pipeline.recording.preload"])


@contextmanager
def _environment_of_workers() -> Iterator[dict[str, str]]:
    """Start processes inside with the environment that workers have: one thread each, and no run of `mlflow run`'s."""
    before = dict(os.environ)
    os.environ.update({**importable(), **THREADS})
    os.environ.pop("MLFLOW_RUN_ID", None)
    try:
        yield dict(os.environ)
    finally:
        os.environ.clear()
        os.environ.update(before)


def _work(*given: Any) -> None:
    from pipeline.experiments import worker  # only there: it brings torch

    worker.main(*given)


def start_importing() -> None:
    """Start the process that workers are forked from, which imports beside whatever this one does meanwhile."""
    if CONTEXT.get_start_method() == "forkserver":
        with _environment_of_workers():
            forkserver.ensure_running()


class _Worker:
    """A worker process and the run that it is at."""

    def __init__(self, uploader: UploaderProcess, log: Path) -> None:
        self.connection, theirs = CONTEXT.Pipe()
        sender = Connection(os.dup(uploader.descriptor), readable=False)  # what multiprocessing hands over
        with sender, theirs, _environment_of_workers() as environment:
            self.process = CONTEXT.Process(target=_work, args=(theirs, sender, str(log), environment))
            self.process.start()
        self.trial: Trial | None = None
        self.has: set[Data] = set()

    def give(self, job: Mapping[str, Any] | None) -> None:
        """Hand it a job, or None: there is nothing more to do."""
        with contextlib.suppress(OSError):  # it died; its connection's end tells
            self.connection.send(job)

    def news(self) -> dict[str, Any] | None:
        """What it says next; None: it is gone."""
        try:
            heard: dict[str, Any] = self.connection.recv()
        except (EOFError, OSError):
            return None
        return heard


class WorkerPool:
    """So many workers at most, which live until it is left; whatever they are at then stops, its last epoch saved."""

    def __init__(
        self,
        size: int,
        uploader: UploaderProcess,
        parent: RunFolder,
        runs_dir: Path,
        sources: Mapping[Data, Dataset] = {},
    ) -> None:
        """Have room for so many; `sources` are the data that workers are sent, each once."""
        self.sources = sources
        self.size, self.uploader, self.parent, self.runs_dir = size, uploader, parent, runs_dir
        self.workers: list[_Worker] = []
        self.selector = selectors.DefaultSelector()
        self.waiting: Iterator[Trial] = iter(())
        self.changed: Callable[[Trial], None] = lambda trial: None

    def __enter__(self) -> "WorkerPool":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            for each in self.workers:
                each.give(None)
        self._shutdown(str(error) if isinstance(error, Interrupted) else "the experiment stopped")

    def run(self, trials: Iterable[Trial], changed: Callable[[Trial], None]) -> None:
        """Train the trials in their order; `changed` hears of each step. Whatever ends one does not end the rest."""
        self.waiting, self.changed = iter(trials), changed
        for trial in itertools.islice(self.waiting, self.size):
            self._assign(self._idle_worker(), trial)
        while any(each.trial for each in self.workers):
            for key, _ in self.selector.select(timeout=1.0):
                self._on_message(key.data)

    def _idle_worker(self) -> _Worker:
        """One that has nothing to do, or a new one."""
        if idle := next((each for each in self.workers if each.trial is None), None):
            return idle
        started = _Worker(self.uploader, self.parent.path / "workers.log")
        self.workers.append(started)
        self.selector.register(started.connection, selectors.EVENT_READ, started)
        return started

    def _assign(self, worker: _Worker, trial: Trial) -> None:
        job = {"config": trial.config.as_dict(), "resume": trial.folder is not None, "tags": trial.tags}
        trial.folder = trial.folder or new_folder(self.runs_dir)
        trial.state, trial.began_at, worker.trial = "running", time.monotonic(), trial
        data = data_of(trial.config)
        if data in self.sources and data not in worker.has:
            job["source"] = self.sources[data]
            worker.has.add(data)
        worker.give({**job, "folder": str(trial.folder.path), "parent": self.parent.path.name})
        self.changed(trial)

    def _on_message(self, worker: _Worker) -> None:
        news = worker.news()
        if news is None:
            self._on_exit(worker)
            if following := next(self.waiting, None):
                self._assign(self._idle_worker(), following)
            return
        trial = worker.trial
        assert trial is not None
        trial.hear(news)
        if "end" in news:
            worker.trial = None
        self.changed(trial)
        if worker.trial is None and (following := next(self.waiting, None)):
            self._assign(worker, following)

    def _on_exit(self, worker: _Worker) -> None:
        """A worker that is gone takes its run with it, not the experiment."""
        self.selector.unregister(worker.connection)
        self.workers.remove(worker)
        worker.process.join()
        if trial := worker.trial:
            code = worker.process.exitcode
            trial.state, trial.reason = "failed", f"its process died (exit code {code}); start the experiment again"
            _close_record(trial)
            self.changed(trial)

    def _shutdown(self, reason: str) -> None:
        """Close the connections: workers that are still at something stop, their last whole epoch saved.

        Who takes too long for that is killed, and its run is as KILLED as the others', for the same reason.
        """
        for each in self.workers:
            each.connection.close()
        until = time.monotonic() + STOPPING_S
        for each in self.workers:
            each.process.join(max(0.0, until - time.monotonic()))
            if each.process.exitcode is None:
                each.process.kill()
                each.process.join()
                if each.trial:
                    _close_record(each.trial, "KILLED", reason)


def _close_record(trial: Trial, *how: str) -> None:
    """Write the end that the run's killed worker could not, if it had begun and not ended."""
    if (folder := trial.folder) and folder.started() and not folder.ended():
        recovery.close_as_dead(folder, *how)
