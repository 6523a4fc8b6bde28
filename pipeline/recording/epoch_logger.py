"""The record of our own trainings as Lightning's Trainer takes it: a run that is open already."""

from typing import Any

from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities import rank_zero_only

from pipeline.tracking.run import Run


class EpochLogger(Logger):
    """Logs the epochs of a run that somebody else has opened and will end. Only rank 0 has a record to write to."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self.run = run

    @property
    def name(self) -> str:
        """The folder's parent, as Lightning asks for one."""
        return self.run.folder.path.parent.name

    @property
    def version(self) -> str:
        """The run folder's name."""
        return self.run.folder.path.name

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Record metrics at the epoch given as step; `time_ms` among them is when they were measured."""
        values = dict(metrics)
        time_ms = values.pop("time_ms", None)
        self.run.metrics(values, step or 0, int(time_ms) if time_ms else None)

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing: the record got every knob when it was opened."""
