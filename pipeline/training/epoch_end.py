"""What happens when an epoch has ended: it is logged, saved, told; and which of the epochs is the best."""

import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint

from pipeline import divergence
from pipeline.training import checkpoints

Metrics = dict[str, float]
Report = Callable[[int, Metrics], None]


class EpochEnd(Checkpoint):
    """What happens when an epoch has ended, in this order: it is logged, saved, told.

    A `Checkpoint`, because those are the callbacks that Lightning calls after the module has logged its means.
    """

    def __init__(
        self, folder: Path | None, keep_best: bool, report: Report | None, stop_if_diverged: bool = True
    ) -> None:
        self.stop_if_diverged = stop_if_diverged
        self.diverged_in: int | None = None
        self.folder, self.keep_best, self.report = folder, keep_best, report
        self.history: dict[int, Metrics] = {}
        self.best_loss = float("inf")
        self._began = 0.0
        self._on_sigterm = signal.getsignal(signal.SIGTERM)

    @property
    def best_path(self) -> Path | None:
        """Where the weights of the best epoch lie."""
        return self.folder / checkpoints.BEST if self.folder and self.keep_best else None

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._began = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        names = ("train_loss", "train_accuracy", "val_loss", "val_accuracy")
        metrics = {name: trainer.callback_metrics[name].item() for name in names}
        metrics["epoch_seconds"] = time.perf_counter() - self._began
        before = max((earlier["time_ms"] for earlier in self.history.values()), default=0)
        metrics["time_ms"] = max(before, time.time_ns() // 1_000_000)
        epoch = trainer.current_epoch + 1
        self.history[epoch] = metrics
        if trainer.logger:
            trainer.logger.log_metrics(metrics, step=epoch)
        self._look_for_divergence(trainer, pl_module, epoch)
        if self.folder and not (self.diverged_in and self.stop_if_diverged):
            self._save_if_it_can(trainer, self.folder, epoch, metrics["val_loss"])
        if self.report and trainer.is_global_zero:
            self.report(epoch, metrics)

    def _look_for_divergence(self, trainer: Trainer, module: LightningModule, epoch: int) -> None:
        """All ranks have the same means and weights, so they stop together."""
        if self.diverged_in is None and not (
            divergence.first_epoch({epoch: self.history[epoch]}) is None
            and all(bool(weights.isfinite().all()) for weights in module.parameters())
        ):
            self.diverged_in = epoch
            trainer.should_stop = trainer.should_stop or self.stop_if_diverged
            if not self.stop_if_diverged and trainer.is_global_zero:
                print(f"warning: {divergence.words(epoch, self.history[epoch])}; it goes on", file=sys.stderr)

    def _save_if_it_can(self, trainer: Trainer, folder: Path, epoch: int, val_loss: float) -> None:
        """A full disk costs a checkpoint, not the training; each is tried alone, as the other ranks do both."""
        try:
            if self.best_path and best_epoch(self.history) == epoch:
                checkpoints.write_whole(trainer, self.best_path)
                self.best_loss = val_loss
        except OSError as error:
            print(f"warning: the weights of epoch {epoch}, the best so far, are not kept ({error})", file=sys.stderr)
        try:
            checkpoints.save(trainer, folder, epoch)
        except OSError as error:  # the last whole checkpoint stays
            print(f"warning: no checkpoint of epoch {epoch} ({error})", file=sys.stderr)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the epochs that the checkpoint knows: the record may have lost its last lines."""
        self._take_sigterm_back()
        for epoch, metrics in self.history.items():
            if trainer.logger:
                trainer.logger.log_metrics(metrics, step=epoch)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Hear of SIGTERM during the test as well."""
        self._take_sigterm_back()

    def _take_sigterm_back(self) -> None:
        """Lightning's handler, set as a loop begins, waits in a broadcast for ranks that may be elsewhere: for ever."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._on_sigterm)

    def state_dict(self) -> dict[str, Any]:
        """The history so far, so that a resumed run knows all of it."""
        return {"history": self.history, "best_loss": self.best_loss}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.history, self.best_loss = dict(state_dict["history"]), state_dict["best_loss"]
        self.diverged_in = divergence.first_epoch(self.history)


def best_is_kept(checkpoint: Path) -> bool:
    """Whether the weights of the best epoch that a whole checkpoint knows of can still be given."""
    states = (checkpoints.load(checkpoint) or {"callbacks": {}})["callbacks"]
    history: dict[int, Metrics] = next(
        (state["history"] for name, state in states.items() if name.startswith(EpochEnd.__name__)), {}
    )
    best = best_epoch(history)
    return not best or checkpoints.find_best(checkpoint.parent, best) is not None


def best_epoch(history: Mapping[int, Metrics]) -> int:
    """The first epoch (from 1) of the smallest validation loss; 0 if none has a number for one."""
    losses = {epoch: metrics["val_loss"] for epoch, metrics in history.items() if not math.isnan(metrics["val_loss"])}
    return min(losses, key=lambda epoch: (losses[epoch], epoch), default=0)
