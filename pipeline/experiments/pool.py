"""Worker processes that train an experiment's runs, several at a time, and what is heard of them."""

import contextlib
import itertools
import json
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from pipeline.experiments.trial import Trial
from pipeline.terminal.bars import EpochLine
from pipeline.tracking import recovery
from pipeline.tracking.folders import new_folder
from pipeline.tracking.journal import RunFolder
from pipeline.tracking.uploader import UploaderProcess, importable

STOPPING_S = 8.0
THREADS = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")


class _Worker:
    """A worker process and the run that it is at."""

    def __init__(self, uploader: UploaderProcess, log: Path) -> None:
        kept = {name: value for name, value in importable().items() if name != "MLFLOW_RUN_ID"}
        with log.open("ab") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "pipeline.experiments.worker", str(uploader.descriptor)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                pass_fds=(uploader.descriptor,),
                env={**kept, **THREADS},
                start_new_session=True,  # Ctrl-C reaches it through the experiment
            )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.input, self.output = self.process.stdin, self.process.stdout
        self.trial: Trial | None = None
        self._rest = b""

    def give(self, job: dict[str, Any] | None) -> None:
        """Hand it a job, or None: there is nothing more to do."""
        with contextlib.suppress(OSError):  # it died; its output's end tells
            self.input.write(json.dumps(job).encode() + b"\n")
            self.input.flush()

    def news(self) -> list[dict[str, Any]] | None:
        """What it has said; None: it is gone."""
        heard = os.read(self.output.fileno(), 65536)
        if not heard:
            return None
        *lines, self._rest = (self._rest + heard).split(b"\n")
        return [json.loads(line) for line in lines]


class WorkerPool:
    """So many workers, alive until all runs have ended."""

    def __init__(self, size: int, uploader: UploaderProcess, parent: RunFolder, runs_dir: Path) -> None:
        self.size, self.uploader, self.parent, self.runs_dir = size, uploader, parent, runs_dir
        self.workers: list[_Worker] = []
        self.selector = selectors.DefaultSelector()
        self.waiting: Iterator[Trial] = iter(())
        self.changed: Callable[[Trial], None] = lambda trial: None

    def run(self, trials: Iterable[Trial], changed: Callable[[Trial], None]) -> None:
        """Train the trials in their order; `changed` hears of each step. Whatever ends one does not end the rest."""
        self.waiting, self.changed = iter(trials), changed
        try:
            for trial in itertools.islice(self.waiting, self.size):
                self._assign(self._start_worker(), trial)
            while any(worker.trial for worker in self.workers):
                for key, _ in self.selector.select(timeout=1.0):
                    self._on_message(key.data)
            for worker in self.workers:
                worker.give(None)
        finally:
            self._shutdown()

    def _start_worker(self) -> _Worker:
        worker = _Worker(self.uploader, self.parent.path / "workers.log")
        self.workers.append(worker)
        self.selector.register(worker.output, selectors.EVENT_READ, worker)
        return worker

    def _assign(self, worker: _Worker, trial: Trial) -> None:
        job = {"config": trial.config.as_dict(), "resume": trial.folder is not None, "tags": trial.tags}
        trial.folder = trial.folder or new_folder(self.runs_dir)
        trial.state, trial.began_at, worker.trial = "running", time.monotonic(), trial
        worker.give({**job, "folder": str(trial.folder.path), "parent": self.parent.path.name})
        self.changed(trial)

    def _on_message(self, worker: _Worker) -> None:
        news = worker.news()
        if news is None:
            self._on_exit(worker)
            if following := next(self.waiting, None):
                self._assign(self._start_worker(), following)
            return
        for each in news:
            trial = worker.trial
            assert trial is not None
            if "at" in each:
                if each["done"] == 0 or trial.line is None:
                    trial.line = EpochLine(each["steps"])
                trial.line.done, trial.line.values = each["done"], each["means"]
            if "epoch" in each:
                trial.epochs_done, trial.accuracy = each["epoch"], each["accuracy"]
                trial.epoch_seconds.append(each["seconds"])
            if "end" in each:
                trial.state = {"FINISHED": "finished", "DIVERGED": "diverged"}.get(each["end"], "failed")
                trial.reason, trial.seconds = each.get("reason", ""), time.monotonic() - trial.began_at
                worker.trial = None
            self.changed(trial)
            if worker.trial is None and (following := next(self.waiting, None)):
                self._assign(worker, following)

    def _on_exit(self, worker: _Worker) -> None:
        """A worker that is gone takes its run with it, not the experiment."""
        self.selector.unregister(worker.output)
        self.workers.remove(worker)
        code = worker.process.wait()
        if trial := worker.trial:
            trial.state, trial.reason = "failed", f"its process died (exit code {code}); start the experiment again"
            assert trial.folder is not None
            if trial.folder.started() and not trial.folder.ended():
                recovery.close_as_dead(trial.folder)
            self.changed(trial)

    def _shutdown(self) -> None:
        """Close the workers' input: those that are still at something stop, their last whole epoch saved."""
        for worker in self.workers:
            with contextlib.suppress(OSError):
                worker.input.close()
        until = time.monotonic() + STOPPING_S
        for worker in self.workers:
            try:
                worker.process.wait(max(0.0, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                worker.process.kill()
                worker.process.wait()
