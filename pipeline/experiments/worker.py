"""A process that trains runs of an experiment one after another, on one thread, and pays its imports once.

It reads a job a line (JSON) from its standard input and writes what happens, a line each, to the standard output it was
started with. The end of its input without a `null` line means that the experiment died: it then stops as for SIGTERM,
its run's last whole epoch saved.
"""

import gc
import json
import os
import queue
import signal
import sys
import threading
import time
from typing import Any

from pipeline.config import RunConfig
from pipeline.divergence import DivergedError
from pipeline.recording import record
from pipeline.recording.record import fit_and_record, open_journal, ready
from pipeline.signals import Interrupted, interruptions
from pipeline.terminal.outputs import make_safe
from pipeline.tracking.journal import RunFolder
from pipeline.tracking.run import Run
from pipeline.tracking.uploader import Uploader

Job = dict[str, Any]
STEP_NEWS_S = 0.5


class Worker:
    """One worker process."""

    def __init__(self, uploader_descriptor: int) -> None:
        """Keep the output for what the experiment reads; whatever else is printed goes to the error output."""
        self.uploader_descriptor = uploader_descriptor
        self.output = os.fdopen(os.dup(1), "w", buffering=1)
        os.dup2(2, 1)
        self.jobs: queue.Queue[Job | None] = queue.Queue()
        self.told_at = 0.0

    def listen(self) -> None:
        """Take in jobs; ends the process if the experiment is gone."""
        for line in sys.stdin:
            job = json.loads(line)
            self.jobs.put(job)
            if job is None:
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
        return 0

    def _say(self, **news: Any) -> None:
        self.output.write(json.dumps(news) + "\n")

    def _train(self, job: Job) -> None:
        """Train one run; an error ends that run, not the worker."""
        folder = RunFolder(job["folder"])
        try:
            journal = open_journal(folder)
        except ValueError as error:
            self._say(end="FAILED", reason=str(error))
            return
        try:
            with Run(journal, Uploader(folder, self.uploader_descriptor)) as run:
                self._train_recorded(job, run)
            self._say(end="FINISHED")
        except DivergedError as error:
            self._say(end="DIVERGED", reason=str(error))
        except Exception as error:
            self._say(end="FAILED", reason=f"{type(error).__name__}: {error}")
        finally:
            journal.close()
            gc.collect()  # a trainer and its parts hold each other, and the next run needs the room

    def _train_recorded(self, job: Job, run: Run) -> None:
        config, data = ready(RunConfig.from_mapping(job["config"]))
        checkpoint = None
        if job["resume"]:
            checkpoint = record.resume(config, run, data)
        else:
            record.start(config, run, data, job["tags"], job["parent"])
        fit_and_record(config, run, data, checkpoint, self._report, self._steps)

    def _steps(self, epoch: int, done: int, steps: int, means: dict[str, float]) -> None:
        if not 0 < done < steps or time.monotonic() - self.told_at > STEP_NEWS_S:
            self.told_at = time.monotonic()
            self._say(at=epoch, done=done, steps=steps, means=means)

    def _report(self, epoch: int, metrics: dict[str, float]) -> None:
        self._say(epoch=epoch, seconds=metrics["epoch_seconds"], accuracy=metrics["val_accuracy"])


if __name__ == "__main__":
    make_safe()
    raise SystemExit(Worker(int(sys.argv[1])).run())
