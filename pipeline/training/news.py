"""What a training tells while it goes on: each epoch, and seldom within one."""

import time
from collections.abc import Callable
from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Callback, Checkpoint

from pipeline.training.classifier import Classifier
from pipeline.training.history import Metrics, history_of

Report = Callable[[int, Metrics], None]
# (epoch from 1, steps done, steps of the epoch, name -> mean so far)
OnSteps = Callable[[int, int, int, dict[str, float]], None]


class EpochNews(Checkpoint):
    """Calls `report` with (epoch, metrics) after each epoch."""

    def __init__(self, report: Report) -> None:
        self.report = report

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tell the epoch; a `Checkpoint`'s hook, which comes when the module has logged its means."""
        if trainer.is_global_zero:
            epoch = trainer.current_epoch + 1
            self.report(epoch, history_of(trainer)[epoch])


class StepNews(Callback):
    """Calls `on_steps` as an epoch begins, every so many seconds, and after its last step.

    The means are taken from what the module keeps anyway, only when they are shown, so that no step waits for the
    device and no number changes.
    """

    takes_blocks = True

    def __init__(self, on_steps: OnSteps, every_s: float = 0.2) -> None:
        self.on_steps, self.every_s = on_steps, every_s
        self._told_at = 0.0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._tell(trainer, pl_module, begins=True)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if time.perf_counter() - self._told_at >= self.every_s or trainer.is_last_batch:
            self._tell(trainer, pl_module)

    def _tell(self, trainer: Trainer, module: LightningModule, begins: bool = False) -> None:
        self._told_at = time.perf_counter()
        if trainer.is_global_zero:
            assert isinstance(module, Classifier)
            done, steps, means = module.progress()
            self.on_steps(trainer.current_epoch + 1, 0 if begins else done, steps, {} if begins else means)
