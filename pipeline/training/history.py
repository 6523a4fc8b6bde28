"""What each epoch gave, and which of the epochs is the best."""

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.loggers import Logger
from torch import Tensor

from pipeline.training import checkpoints

Metrics = dict[str, float]
STATE = "EpochEnd"  # what checkpoints call it


class AtEpochs(Logger):
    """A logger as the Trainer gets it, which logs nothing itself: `History` gives the other one each epoch whole.

    Else whatever a callback or a subclass logs by `self.log` would stand there twice, once at Lightning's steps. Around
    None it is there all the same: some callbacks refuse a Trainer without a logger.
    """

    def __init__(self, logger: Logger | None) -> None:
        super().__init__()
        self.logger = logger

    @property
    def name(self) -> str | None:
        """Around None it is empty: what callbacks save lies in Trainer's own folder then, not in one called `None`."""
        return self.logger.name if self.logger else ""

    @property
    def version(self) -> int | str | None:
        return self.logger.version if self.logger else ""

    @property
    def save_dir(self) -> str | None:
        return self.logger.save_dir if self.logger else None

    @property
    def experiment(self) -> Any:
        """What the other one has for a user who logs more than numbers."""
        return getattr(self.logger, "experiment", None)

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Nothing: see above."""

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        if self.logger:
            self.logger.log_hyperparams(params, *args, **kwargs)

    def save(self) -> None:
        if self.logger:
            self.logger.save()

    def finalize(self, status: str) -> None:
        if self.logger:
            self.logger.finalize(status)


class History(Checkpoint):
    """Takes what was logged of each epoch, and gives it to the logger at step 1, 2, ...

    A `Checkpoint`, because those are the callbacks that Lightning calls after the module has logged its means.

    Attributes:
        epochs: epoch (from 1) -> metrics, in a resumed training of all epochs; `time_ms` among them is when it ended.
    """

    def __init__(self, logger: Logger | None = None) -> None:
        self.epochs: dict[int, Metrics] = {}
        self.logger = logger
        self._before: dict[str, Tensor] = {}

    @property
    def state_key(self) -> str:
        return STATE

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        epoch = trainer.current_epoch + 1
        before = max((earlier["time_ms"] for earlier in self.epochs.values()), default=0)
        found = trainer.callback_metrics
        new = {name: value for name, value in found.items() if not _is_same(value, self._before.get(name))}
        self._before = dict(found)
        self.epochs[epoch] = once(new)
        self.epochs[epoch]["time_ms"] = max(before, time.time_ns() // 1_000_000)
        self._log(epoch)

    def _log(self, epoch: int) -> None:
        if self.logger:
            self.logger.log_metrics(self.epochs[epoch], step=epoch)

    def state_dict(self) -> dict[str, Any]:
        return {"history": self.epochs}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Log the epochs that the checkpoint knows: the record may have lost its last lines."""
        self.epochs = dict(state_dict["history"])
        for epoch in self.epochs:
            self._log(epoch)


def _is_same(value: Tensor, before: Tensor | None) -> bool:
    """Whether it is the tensor of the epoch before, which Lightning keeps where nothing new is logged."""
    return before is not None and value.data_ptr() == before.data_ptr()


def once(metrics: Mapping[str, Tensor]) -> Metrics:
    """The metrics as numbers; of what Lightning has as `x`, `x_step` and `x_epoch` the `x`, an epoch's own value."""
    forks = {f"{name}{ending}" for name in metrics for ending in ("_step", "_epoch")}
    return {name: value.item() for name, value in metrics.items() if name not in forks}


def history_of(trainer: Trainer) -> dict[int, Metrics]:
    """The history that the trainer keeps."""
    return next(each for each in trainer.callbacks if isinstance(each, History)).epochs  # type: ignore[attr-defined]


def best_is_kept(checkpoint: Path) -> bool:
    """Whether the weights of the best epoch that a whole checkpoint knows of can still be given."""
    states = (checkpoints.load(checkpoint) or {"callbacks": {}})["callbacks"]
    best = best_epoch(states.get(STATE, {"history": {}})["history"])
    return not best or checkpoints.find_best(checkpoint.parent, best) is not None


def best_epoch(history: Mapping[int, Metrics]) -> int:
    """The first epoch (from 1) of the smallest validation loss; 0 if none has a number for one."""
    losses = {epoch: metrics["val_loss"] for epoch, metrics in history.items() if not math.isnan(metrics["val_loss"])}
    return min(losses, key=lambda epoch: (losses[epoch], epoch), default=0)
