"""Where an experiment's runs are trained: what any such place has to offer, and this machine."""

import contextlib
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from pipeline.data.dataset import Dataset
from pipeline.experiments.pool import WorkerPool, start_importing
from pipeline.experiments.question import Question
from pipeline.experiments.trial import Data, Trial
from pipeline.machine import cores_here
from pipeline.tracking.journal import RunFolder
from pipeline.tracking.uploader import UploaderProcess

MOST_SENT = 1 << 28  # bytes of data that a worker is sent, and does not read again


def bytes_of(source: Dataset) -> int:
    """What its examples take."""
    return sum(each.inputs.nbytes for each in (source.train, source.test))


class Pool(Protocol):
    """Trains runs, so many at a time; whatever is under way as it is left stops, its last epoch saved."""

    size: int

    def run(self, trials: Iterable[Trial], changed: Callable[[Trial], None]) -> None:
        """Train the trials in their order; `changed` hears of each step. Whatever ends one does not end the rest."""

    def __enter__(self) -> Any: ...

    def __exit__(self, *error: Any) -> None: ...


class Engine(Protocol):
    """A place to train.

    Attributes:
        flags: what a command that goes on with the experiment has to say of it.
    """

    flags: dict[str, Any]

    def prepare(self) -> None:
        """Begin what takes a while, beside the reading of the data."""

    def open(self, question: Question, sources: Mapping[Data, Dataset], jobs: int) -> AbstractContextManager[object]:
        """Be ready for the question's runs on this data until what is returned is left.

        Args:
            question: whose runs.
            sources: the data of each.
            jobs: runs at a time; 0: as many as there is room for.

        Raises:
            ValueError: if that cannot be; nothing is left behind.
        """

    def size(self, jobs: int) -> int:
        """How many runs at a time."""

    def pool(self, size: int, uploader: UploaderProcess, parent: RunFolder, runs_dir: Path) -> Pool:
        """What trains them."""


class ThisMachine:
    """Processes of this machine, which are given the data, or read by themselves what is large."""

    def __init__(self) -> None:
        self.flags: dict[str, Any] = {}
        self.sources: dict[Data, Dataset] = {}

    def prepare(self) -> None:
        """Begin to import what trains."""
        start_importing()

    def open(self, question: Question, sources: Mapping[Data, Dataset], jobs: int) -> AbstractContextManager[object]:
        """Keep the data for the workers."""
        for data, source in sources.items():
            if bytes_of(source) <= MOST_SENT:
                self.sources[data] = source
        return contextlib.nullcontext()

    def size(self, jobs: int) -> int:
        """As many as asked for, or as there are cores."""
        return jobs or cores_here()

    def pool(self, size: int, uploader: UploaderProcess, parent: RunFolder, runs_dir: Path) -> WorkerPool:
        return WorkerPool(size, uploader, parent, runs_dir, self.sources)
