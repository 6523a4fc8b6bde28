"""One run of an experiment, as its plan, its pool and its progress know it."""

import functools
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.config import RunConfig
from pipeline.data import datasets
from pipeline.data.dataset import Dataset
from pipeline.terminal.bars import EpochLine
from pipeline.tracking.journal import RunFolder

KEPT_DATASETS = 2  # in the memory of a process
Data = tuple[tuple[str, Any], ...]


@dataclass
class Trial:
    """A variant with a seed.

    Attributes:
        code: the digest of what is to train it, once planned.
        place: of its seed among the variant's, from 0.
        folder: where its record lies; None: it has not begun.
        state: missing, interrupted, running, finished, diverged (an answer as well) or failed.
        epochs_done: whole epochs behind it.
        line: how the epoch goes that it is at.
    """

    variant: str
    seed: int
    config: RunConfig
    tags: dict[str, str]
    code: str = ""
    place: int = 0
    folder: RunFolder | None = None
    state: str = "missing"
    epochs_done: int = 0
    reason: str = ""
    epoch_seconds: list[float] = field(default_factory=list)
    began_at: float = 0.0
    seconds: float = 0.0
    accuracy: float | None = None
    line: EpochLine | None = None

    def hear(self, news: Mapping[str, Any]) -> None:
        """Take in what its worker says of it."""
        if "at" in news:
            if news["done"] == 0 or self.line is None:
                self.line = EpochLine(news["steps"])
            self.line.done, self.line.values = news["done"], news["means"]
        if "epoch" in news:
            self.epochs_done, self.accuracy = news["epoch"], news["accuracy"]
            self.epoch_seconds.append(news["seconds"])
        if "end" in news:
            self.state = {"FINISHED": "finished", "DIVERGED": "diverged"}.get(news["end"], "failed")
            self.reason, self.seconds = news.get("reason", ""), time.monotonic() - self.began_at

    @property
    def ended(self) -> bool:
        """Whether nothing more happens with it in this experiment."""
        return self.state in ("finished", "diverged", "failed")

    @property
    def name(self) -> str:
        """`none seed=3`."""
        return f"{self.variant} seed={self.seed}"


def data_of(config: RunConfig) -> Data:
    """What decides which data a run gets: the knobs of `datasets.load`."""
    return tuple(config.data_knobs().items())


@functools.lru_cache(maxsize=KEPT_DATASETS)
def source_of(data: Data) -> Dataset:
    """The data themselves, read once."""
    return datasets.load(**dict(data))
