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
from pipeline.signals import Interrupted, interruptions, last_words, uninterrupted
from pipeline.terminal.outputs import make_safe
from pipeline.tracking import recovery
from pipeline.tracking.folders import Journal, RunFolder
from pipeline.tracking.uploader import SharedUploader
from pipeline.training.recording import fit_and_record, open_journal, open_record, ready, reopen_record

Job = dict[str, Any]
STEP_NEWS_S = 0.5


class Worker:
    """One worker process."""

    def __init__(self, sender_descriptor: int) -> None:
        """Keep the output for what the experiment reads; whatever else is printed goes to the error output."""
        self.sender_descriptor = sender_descriptor
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
        sender = SharedUploader(folder, self.sender_descriptor)
        try:
            journal = open_journal(folder)
        except ValueError as error:
            self._say(end="FAILED", reason=str(error))
            return
        try:
            self._train_in(job, journal, sender)
        finally:
            journal.close()
            gc.collect()  # a trainer and its parts hold each other, and the next run needs the room

    def _train_in(self, job: Job, journal: Journal, sender: SharedUploader) -> None:
        config = RunConfig.from_mapping(job["config"])
        record = None
        with last_words(lambda reason: recovery.end_killed(journal, reason)):
            try:
                config, data = ready(config)
                checkpoint = None
                if job["resume"]:
                    record, checkpoint = reopen_record(config, journal, sender, data)
                else:
                    record = open_record(config, journal, sender, data, job["tags"], job["parent"])
                fit_and_record(config, record, data, checkpoint, self._report, self._steps)
                record.end("FINISHED")
                self._say(end="FINISHED")
            except Interrupted as interruption:
                recovery.end_killed(journal, str(interruption))
                sender.notify()
                raise
            except DivergedError as error:
                assert record is not None
                record.end("FAILED", str(error))
                self._say(end="DIVERGED", reason=str(error))
            except Exception as error:
                if record:
                    with uninterrupted():
                        record.fail(error)
                self._say(end="FAILED", reason=f"{type(error).__name__}: {error}")

    def _steps(self, epoch: int, done: int, steps: int, means: dict[str, float]) -> None:
        if not 0 < done < steps or time.monotonic() - self.told_at > STEP_NEWS_S:
            self.told_at = time.monotonic()
            self._say(at=epoch, done=done, steps=steps, means=means)

    def _report(self, epoch: int, metrics: dict[str, float]) -> None:
        self._say(epoch=epoch, seconds=metrics["epoch_seconds"], accuracy=metrics["val_accuracy"])


if __name__ == "__main__":
    make_safe()
    raise SystemExit(Worker(int(sys.argv[1])).run())
