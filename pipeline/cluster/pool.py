"""Workers on the nodes of a cluster, as `experiments.pool` has them on this machine: given runs, heard, replaced."""

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from pipeline.cluster.facts import difference
from pipeline.cluster.link import Message
from pipeline.cluster.replica import Replica
from pipeline.experiments.trial import Trial
from pipeline.signals import Interrupted
from pipeline.tracking.folders import new_folder
from pipeline.tracking.journal import RunFolder
from pipeline.tracking.uploader import Uploader

DEATHS = 3
LOOK_S = 2.0


class LostError(Exception):
    """A worker's process, or its node, is gone."""


class Remote(Protocol):
    """A worker's process on some node; `ray_worker` has the one of Ray's."""

    def poll(self, taken: int, refusal: tuple[int, str] | None) -> list[tuple[int, Message]]:
        """What the worker has to say; LostError if it is gone."""

    def train(self, job: Mapping[str, Any]) -> None:
        """Let it begin; does not wait."""

    def kill(self) -> None:
        """End it, if it lives."""


@dataclass
class _Worker:
    """A worker, and the run that it is at; `ready` once its process has said so.

    A thread of its own polls it, so that workers do not wait for each other's disk.
    """

    remote: Remote
    say: Callable[["_Worker", Any], None]
    ready: bool = False
    trial: Trial | None = None
    replica: Replica | None = None
    node: str = ""
    over: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)

    def follow(self) -> None:
        """Take what it says, until it is gone or no more is wanted."""
        taken, refusal = 0, None
        try:
            while not self.over:
                messages = self.remote.poll(taken, refusal)
                refusal = None
                for number, message in messages:
                    if number > taken:
                        try:
                            self._take(message)
                        except OSError as error:
                            refusal = error.errno or 0, error.strerror or str(error)
                        taken = number
        except BaseException as error:
            self.say(self, error)

    def _take(self, message: Message) -> None:
        if "news" in message:
            self.say(self, message["news"])
            return
        with self.lock:  # the folder is not given back in the middle of a write
            if self.replica and not self.over:
                self.replica.take(message)


class ClusterPool:
    """So many workers, wherever the cluster has room for them, alive until all runs have ended."""

    def __init__(
        self,
        size: int,
        start: Callable[[], Remote],
        job_of: Callable[[Trial, Mapping[str, Path]], dict[str, Any]],
        expected: Mapping[str, str],
        uploader: Uploader,
        parent: RunFolder,
        runs_dir: Path,
        environment: Mapping[str, Any],
    ) -> None:
        """Start nothing yet.

        Args:
            size: how many workers.
            start: starts one, without waiting for it.
            job_of: what a worker needs to train a trial, given the files that it goes on with.
            expected: the facts that a node must share.
            uploader, parent, runs_dir: as for workers of this machine.
            environment: see `Replica`.
        """
        self.size, self.start, self.job_of, self.expected = size, start, job_of, expected
        self.uploader, self.parent, self.runs_dir, self.environment = uploader, parent, runs_dir, environment
        self.workers: list[_Worker] = []
        self.heard: queue.Queue[tuple[_Worker, Any]] = queue.Queue()
        self.waiting: deque[Trial] = deque()
        self.deaths: dict[int, tuple[int, int]] = {}  # of a run: how far it had come, how often it came no further
        self.stillborn = 0
        self.changed: Callable[[Trial], None] = lambda trial: None
        self.watch: Callable[[], None] = lambda: None

    def __enter__(self) -> "ClusterPool":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the workers; the runs that they are at keep what is here of them: every epoch that was told."""
        reason = str(error) if isinstance(error, Interrupted) else "the experiment stopped"
        for worker in list(self.workers):
            self._let_go(worker)
            if worker.trial and worker.replica:
                worker.replica.end("KILLED", reason)
                self._close(worker, worker.trial)

    def run(self, trials: Iterable[Trial], changed: Callable[[Trial], None]) -> None:
        """Train the trials in their order; `changed` hears of each step. Whatever ends one does not end the rest."""
        self.waiting, self.changed = deque(trials), changed
        self._fill()
        while self.waiting or any(worker.trial for worker in self.workers):
            try:
                worker, news = self.heard.get(timeout=LOOK_S)
            except queue.Empty:
                self.watch()
            else:
                self._on_news(worker, news)

    def _fill(self) -> None:
        """Give those who have nothing to do a run, and start as many more workers as there is work for."""
        for worker in [each for each in self.workers if each.ready and not each.trial]:
            self._assign(worker)
        wanted = min(self.size, len(self.waiting) + sum(each.trial is not None for each in self.workers))
        while len(self.workers) < wanted:
            worker = _Worker(self.start(), lambda worker, news: self.heard.put((worker, news)))
            self.workers.append(worker)
            threading.Thread(target=worker.follow, daemon=True).start()

    def _assign(self, worker: _Worker) -> None:
        """Give it the next run; without one it waits, or goes where another waits for its place."""
        if not self.waiting:
            if not all(each.ready for each in self.workers):
                self._let_go(worker)
            return
        trial = self.waiting.popleft()
        trial.folder = trial.folder or new_folder(self.runs_dir)
        try:
            told = Uploader(trial.folder, self.uploader.descriptor)
            worker.replica = Replica(trial.folder, told, self.environment)
        except ValueError as error:
            self._end(trial, str(error))
            self._assign(worker)
            return
        trial.state, trial.began_at, worker.trial = "running", time.monotonic(), trial
        files = worker.replica.to_go_on_with()
        worker.remote.train({**self.job_of(trial, files), "parent": self.parent.path.name})
        self.changed(trial)

    def _on_news(self, worker: _Worker, news: Any) -> None:
        if worker not in self.workers:
            return
        if isinstance(news, LostError):
            self._on_loss(worker, str(news))
        elif isinstance(news, BaseException):
            raise news
        elif "line" in news:
            with (self.parent.path / "workers.log").open("a") as log:
                log.write(f"{worker.node}: {news['line']}\n")
        elif "ready" in news:
            self._on_ready(worker, news)
        elif trial := worker.trial:
            trial.hear(news)
            if "end" in news:
                self._close(worker, trial)
            self.changed(trial)
            if worker.trial is None:
                self._assign(worker)

    def _on_ready(self, worker: _Worker, news: Mapping[str, Any]) -> None:
        worker.node, worker.ready, self.stillborn = news.get("node", ""), True, 0
        if "error" in news:
            raise ValueError(f"a node cannot import what a training needs ({news['error']}); install: make ray")
        if words := difference(worker.node, news["ready"], self.expected):
            raise ValueError(words)
        self._assign(worker)

    def _on_loss(self, worker: _Worker, reason: str) -> None:
        """Its run goes on with another worker, from its last checkpoint; three times no further, and it fails."""
        self._let_go(worker)
        if (trial := worker.trial) and (end := worker.replica and worker.replica.ended()):
            trial.hear({"end": end[0], "reason": end[1]})  # it had only not said so yet
            self._close(worker, trial)
            self.changed(trial)
        elif trial:
            assert worker.replica is not None
            furthest, count = self.deaths.get(id(trial), (0, 0))
            count = 1 if trial.epochs_done > furthest else count + 1
            self.deaths[id(trial)] = max(furthest, trial.epochs_done), count
            words = f"its worker died {count} times and came no further, the last time on {worker.node}: {reason}"
            if count >= DEATHS:
                worker.replica.end("FAILED", words)
            self._close(worker, trial)
            if count >= DEATHS:
                self._end(trial, words)
            else:
                trial.state, trial.line = "interrupted" if trial.folder else "missing", None
                self.waiting.appendleft(trial)
                self.changed(trial)
        elif not worker.ready:
            self.stillborn += 1
            if self.stillborn >= DEATHS * self.size and not any(each.ready for each in self.workers):
                raise ValueError(f"no worker starts on the cluster: {reason}")
        self._fill()

    def _close(self, worker: _Worker, trial: Trial) -> None:
        """Give back the run's folder; one in which nothing stands is gone."""
        assert worker.replica is not None
        if held := worker.replica.close():
            trial.state, trial.reason = "failed", held
        if not worker.replica.folder.path.exists():
            trial.folder = None
        worker.trial = worker.replica = None

    def _end(self, trial: Trial, reason: str) -> None:
        trial.state, trial.reason, trial.seconds = "failed", reason, time.monotonic() - trial.began_at
        self.changed(trial)

    def _let_go(self, worker: _Worker) -> None:
        with worker.lock:
            worker.over = True
        self.workers.remove(worker)
        worker.remote.kill()
