"""What each epoch gave, and which of the epochs is the best."""

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint

from pipeline.training import checkpoints

Metrics = dict[str, float]
STATE = "EpochEnd"  # what checkpoints call it


class History(Checkpoint):
    """Takes what the module has logged of each epoch, and gives it to the trainer's logger at step 1, 2, ...

    A `Checkpoint`, because those are the callbacks that Lightning calls after the module has logged its means.

    Attributes:
        epochs: epoch (from 1) -> metrics, in a resumed training of all epochs; `time_ms` among them is when it ended.
    """

    def __init__(self) -> None:
        self.epochs: dict[int, Metrics] = {}

    @property
    def state_key(self) -> str:
        return STATE

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the epochs that the checkpoint knows: the record may have lost its last lines."""
        for epoch in self.epochs:
            self._log(trainer, epoch)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        epoch = trainer.current_epoch + 1
        before = max((earlier["time_ms"] for earlier in self.epochs.values()), default=0)
        self.epochs[epoch] = {name: value.item() for name, value in trainer.callback_metrics.items()}
        self.epochs[epoch]["time_ms"] = max(before, time.time_ns() // 1_000_000)
        self._log(trainer, epoch)

    def _log(self, trainer: Trainer, epoch: int) -> None:
        if trainer.logger:
            trainer.logger.log_metrics(self.epochs[epoch], step=epoch)

    def state_dict(self) -> dict[str, Any]:
        return {"history": self.epochs}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.epochs = dict(state_dict["history"])


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
