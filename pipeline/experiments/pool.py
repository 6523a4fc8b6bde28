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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.config import RunConfig
from pipeline.terminal.bars import EpochLine
from pipeline.tracking import recovery
from pipeline.tracking.folders import RunFolder, new_folder
from pipeline.tracking.uploader import UploaderProcess, importable

STOPPING_S = 8.0
THREADS = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")


@dataclass
class Child:
    """One run of an experiment.

    Attributes:
        folder: where its record lies; None: it has not begun.
        state: missing, interrupted, running, finished, diverged (an answer as well) or failed.
        epochs_done: whole epochs behind it.
        line: how the epoch goes that it is at.
    """

    variant: str
    seed: int
    config: RunConfig
    tags: dict[str, str]
    folder: RunFolder | None = None
    state: str = "missing"
    epochs_done: int = 0
    reason: str = ""
    epoch_seconds: list[float] = field(default_factory=list)
    began_at: float = 0.0
    seconds: float = 0.0
    accuracy: float | None = None
    line: EpochLine | None = None

    @property
    def ended(self) -> bool:
        """Whether nothing more happens with it in this experiment."""
        return self.state in ("finished", "diverged", "failed")

    @property
    def name(self) -> str:
        """`none seed=3`."""
        return f"{self.variant} seed={self.seed}"


class _Worker:
    """A worker process and the run that it is at."""

    def __init__(self, sender: UploaderProcess, log: Path) -> None:
        kept = {name: value for name, value in importable().items() if name != "MLFLOW_RUN_ID"}
        with log.open("ab") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "pipeline.experiments.worker", str(sender.descriptor)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                pass_fds=(sender.descriptor,),
                env={**kept, **THREADS},
                start_new_session=True,  # Ctrl-C reaches it through the experiment
            )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.input, self.output = self.process.stdin, self.process.stdout
        self.child: Child | None = None
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

    def __init__(self, size: int, sender: UploaderProcess, parent: RunFolder, runs_dir: Path) -> None:
        self.size, self.sender, self.parent, self.runs_dir = size, sender, parent, runs_dir
        self.workers: list[_Worker] = []
        self.selector = selectors.DefaultSelector()

    def run(self, children: Iterable[Child], changed: Callable[[Child], None]) -> None:
        """Train the children in their order; `changed` hears of each step. Whatever ends one does not end the rest."""
        waiting = iter(children)
        try:
            for child in itertools.islice(waiting, self.size):
                self._assign(self._start_worker(), child, changed)
            while any(worker.child for worker in self.workers):
                for key, _ in self.selector.select(timeout=1.0):
                    self._on_message(key.data, waiting, changed)
            for worker in self.workers:
                worker.give(None)
        finally:
            self._shutdown()

    def _start_worker(self) -> _Worker:
        worker = _Worker(self.sender, self.parent.path / "workers.log")
        self.workers.append(worker)
        self.selector.register(worker.output, selectors.EVENT_READ, worker)
        return worker

    def _assign(self, worker: _Worker, child: Child, changed: Callable[[Child], None]) -> None:
        resume = child.folder is not None
        child.folder = child.folder or new_folder(self.runs_dir)
        child.state, child.began_at, worker.child = "running", time.monotonic(), child
        worker.give(
            {
                "config": child.config.as_dict(),
                "folder": str(child.folder.path),
                "resume": resume,
                "tags": child.tags,
                "parent": self.parent.path.name,
            }
        )
        changed(child)

    def _on_message(self, worker: _Worker, waiting: Iterator[Child], changed: Callable[[Child], None]) -> None:
        news = worker.news()
        if news is None:
            self._on_exit(worker, changed)
            if following := next(waiting, None):
                self._assign(self._start_worker(), following, changed)
            return
        for each in news:
            child = worker.child
            assert child is not None
            if "at" in each:
                if each["done"] == 0 or child.line is None:
                    child.line = EpochLine(each["steps"])
                child.line.done, child.line.values = each["done"], each["means"]
            if "epoch" in each:
                child.epochs_done, child.accuracy = each["epoch"], each["accuracy"]
                child.epoch_seconds.append(each["seconds"])
            if "end" in each:
                child.state = {"FINISHED": "finished", "DIVERGED": "diverged"}.get(each["end"], "failed")
                child.reason, child.seconds = each.get("reason", ""), time.monotonic() - child.began_at
                worker.child = None
            changed(child)
            if worker.child is None and (following := next(waiting, None)):
                self._assign(worker, following, changed)

    def _on_exit(self, worker: _Worker, changed: Callable[[Child], None]) -> None:
        """A worker that is gone takes its run with it, not the experiment."""
        self.selector.unregister(worker.output)
        self.workers.remove(worker)
        code = worker.process.wait()
        if child := worker.child:
            child.state, child.reason = "failed", f"its process died (exit code {code}); start the experiment again"
            assert child.folder is not None
            if child.folder.started() and not child.folder.ended():
                recovery.close_as_dead(child.folder)
            changed(child)

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
