"""A process that trains runs of an experiment one after another, on one thread, and reads its data once.

It is given a job at a time over a connection, and sends what happens, a message each. The connection's end before a
job that is None means that the experiment died: it then stops as for SIGTERM, its run's last whole epoch saved.
"""

import contextlib
import gc
import os
import queue
import signal
import threading
import time
from multiprocessing.connection import Connection
from typing import Any, NoReturn

from pipeline.config import RunConfig
from pipeline.data.dataset import Dataset
from pipeline.divergence import DivergedError
from pipeline.experiments.trial import data_of, source_of
from pipeline.recording import record
from pipeline.recording.record import fit_and_record, forget_checkpoints, open_journal, ready
from pipeline.redaction import without_secrets
from pipeline.signals import Interrupted, interruptions
from pipeline.terminal.outputs import make_safe
from pipeline.terminal.shell import DONE
from pipeline.tracking.journal import RunFolder
from pipeline.tracking.run import Run
from pipeline.tracking.uploader import Uploader

Job = dict[str, Any]
STEP_NEWS_S = 0.5


class Worker:
    """One worker process."""

    told_at = 0.0
    is_new = True

    def __init__(self, connection: "Connection[Any, Any]", uploader_descriptor: int) -> None:
        self.connection, self.uploader_descriptor = connection, uploader_descriptor
        self.jobs: queue.Queue[Job | None] = queue.Queue()
        self.sources: dict[Any, Dataset] = {}

    def listen(self) -> None:
        """Take in jobs; ends the process if the experiment is gone."""
        with contextlib.suppress(EOFError, OSError):
            while (job := self.connection.recv()) is not None:
                self.jobs.put(job)
            self.jobs.put(None)
            return
        os.kill(os.getpid(), signal.SIGTERM)

    def run(self) -> int:
        """Train until there is nothing more to do; returns the exit code."""
        with interruptions():
            threading.Thread(target=self.listen, daemon=True).start()
            try:
                while (job := self.jobs.get()) is not None:
                    self._train(job)
            except Interrupted as interruption:
                return interruption.exit_code
        return DONE

    def _say(self, **news: Any) -> None:
        with contextlib.suppress(OSError):  # the experiment is gone: no fault of the run's, `listen` is about to end it
            self.connection.send(news)

    def _train(self, job: Job) -> None:
        """Train one run; an error ends that run, not the worker."""
        try:
            run = self._open(job)
        except ValueError as error:
            self._say(end="FAILED", reason=str(error))
            return
        news = {"end": "FINISHED"}
        try:
            with run:
                self._train_recorded(job, run)
        except DivergedError as error:
            news = {"end": "DIVERGED", "reason": str(error)}
        except Exception as error:
            news = {"end": "FAILED", "reason": without_secrets(f"{type(error).__name__}: {error}")}
        finally:
            run.journal.close()
        forget_checkpoints(run.folder)
        self._say(**news)  # only now: who hears it may write into the folder
        gc.collect()  # a trainer and its parts hold each other, and the next run needs the room
        if self.is_new:
            self.is_new = False
            gc.freeze()  # what is left of the first run are imports: nobody looks through them again

    def _open(self, job: Job) -> Run:
        folder = RunFolder(job["folder"])
        return Run(open_journal(folder), Uploader(folder, self.uploader_descriptor))

    def _data(self, job: Job, config: RunConfig) -> Dataset:
        data = data_of(config)
        if "source" in job:
            self.sources[data] = job["source"]
        return self.sources.get(data) or source_of(data)

    def _train_recorded(self, job: Job, run: Run) -> None:
        config = RunConfig.from_mapping(job["config"])
        config, data = ready(config, self._data(job, config))
        checkpoint = None
        if job["resume"]:
            checkpoint = record.resume(config, run, data)
        else:
            record.start(config, run, data, job["tags"], job["parent"])
        fit_and_record(config, run, data, checkpoint, self._report, self._steps, draw=False)

    def _steps(self, epoch: int, done: int, steps: int, means: dict[str, float]) -> None:
        if not 0 < done < steps or time.monotonic() - self.told_at > STEP_NEWS_S:
            self.told_at = time.monotonic()
            self._say(at=epoch, done=done, steps=steps, means=means)

    def _report(self, epoch: int, metrics: dict[str, float]) -> None:
        self._say(epoch=epoch, seconds=metrics["epoch_seconds"], accuracy=metrics["val_accuracy"])


def main(
    connection: "Connection[Any, Any]", uploader: "Connection[Any, Any]", log: str, environ: dict[str, str]
) -> NoReturn:
    """Be a worker: what is printed goes to the log, Ctrl-C comes through the experiment."""
    os.setsid()
    os.environ.clear()
    os.environ.update(environ)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    for descriptor in (1, 2):
        os.dup2(file, descriptor)
    os.close(file)
    make_safe()
    raise SystemExit(Worker(connection, uploader.fileno()).run())
