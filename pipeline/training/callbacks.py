"""The callbacks of every training, each one job; `History` lies beside."""

import random
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Callback, Checkpoint, StochasticWeightAveraging

from pipeline import divergence
from pipeline.data.datamodule import DataModule
from pipeline.networks.dropout import Dropout
from pipeline.seeding import derive_seed
from pipeline.signals import keep_sigterm
from pipeline.training import checkpoints
from pipeline.training.history import best_epoch, history_of

STOPPED = "should_stop"  # what checkpoints call it


def seed_generators(seed: int) -> None:
    """Begin the sequences of the global generators, torch's, Python's and NumPy's, that belong to the seed."""
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)


class EpochSeeds(Callback):
    """Begins each epoch's own draws, which (seed, epoch, rank) decides: a resumed epoch draws what it would have."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Seed the global generators, each dropout layer by its place in the network, and the augmentation."""
        place = ("dropout", trainer.current_epoch, trainer.global_rank)
        seed_generators(derive_seed(self.seed, *place))
        network: torch.nn.Module = pl_module.network  # type: ignore[assignment]
        for index, module in enumerate(network.modules()):
            if isinstance(module, Dropout):
                module.reseed(derive_seed(self.seed, *place, index))
        if augment := getattr(pl_module, "augment", None):
            augment.reseed(derive_seed(self.seed, "augment", *place[1:]))

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Seed the global generators as for one epoch more: what was resumed in the test has trained none."""
        seed_generators(derive_seed(self.seed, "dropout", trainer.max_epochs or 0, trainer.global_rank))


class DataAtHand(Callback):
    """Shows the other callbacks the data module, also where Lightning was given loaders alone."""

    def __init__(self, data: DataModule) -> None:
        self.data = data

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Only now: what Lightning has before this hook it would set up once more."""
        trainer.datamodule = self.data  # type: ignore[attr-defined]


class RateLog(Callback):
    """Logs the `learning_rate` of each epoch, where a schedule moves it."""

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.lr_scheduler_configs:
            rate = trainer.optimizers[0].param_groups[0]["lr"]
            pl_module.log("learning_rate", torch.tensor(rate, dtype=torch.float64), logger=False)


class EpochTimer(Callback):
    """Logs `epoch_seconds`, with validation."""

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.began = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        seconds = torch.tensor(time.perf_counter() - self.began, dtype=torch.float64)
        pl_module.log("epoch_seconds", seconds, logger=False)


class DivergenceStop(Checkpoint):
    """Stops a training whose losses or weights are no longer finite, or warns of it.

    Attributes:
        epoch: the first such epoch, from 1.
    """

    def __init__(self, stop: bool) -> None:
        self.stop = stop
        self.epoch: int | None = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at the epochs of the checkpoint; there may be none left to train."""
        self.epoch = divergence.first_epoch(history_of(trainer))

    on_train_start = on_fit_start  # where the strategy loads the checkpoint in between

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at the epoch; all ranks have the same means and weights, so they stop together."""
        epoch = trainer.current_epoch + 1
        metrics = history_of(trainer)[epoch]
        finite = divergence.first_epoch({epoch: metrics}) is None
        if self.epoch or (finite and all(bool(weights.isfinite().all()) for weights in pl_module.parameters())):
            return
        self.epoch = epoch
        trainer.should_stop = trainer.should_stop or self.stop
        if not self.stop and trainer.is_global_zero:
            print(f"warning: {divergence.words(epoch, metrics)}; it goes on", file=sys.stderr)


class EpochCheckpoints(Checkpoint):
    """Saves a checkpoint after each epoch, and the weights of the best one. None of an epoch that is no good to anyone.

    A full disk costs a checkpoint, not the training.
    """

    def __init__(self, folder: Path, keep_best: bool, divergence: DivergenceStop) -> None:
        self.folder, self.keep_best, self.divergence = folder, keep_best, divergence

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save; each is tried alone, as the other ranks do both."""
        if self.divergence.epoch and self.divergence.stop:
            return
        epoch = trainer.current_epoch + 1
        try:
            if self.keep_best and best_epoch(history_of(trainer)) == epoch:
                checkpoints.write_whole(trainer, self.folder / checkpoints.BEST)
        except OSError as error:
            print(f"warning: the weights of epoch {epoch}, the best so far, are not kept ({error})", file=sys.stderr)
        try:
            checkpoints.save(trainer, self.folder, epoch)
        except OSError as error:  # the last whole checkpoint stays
            print(f"warning: no checkpoint of epoch {epoch} ({error})", file=sys.stderr)


class StaysStopped(Callback):
    """Keeps in each checkpoint whether somebody has stopped the training early, which Lightning's own state forgets.

    So a training that was killed after that, in its test or its export, trains no epoch more when it is resumed.
    """

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint[STOPPED] = trainer.should_stop

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        trainer.should_stop = checkpoint.get(STOPPED, False)


class BeginsAndEnds(Callback):
    """Begins and ends a training also where it is resumed with no epoch left, in its test: Lightning passes over both.

    Some callbacks put the weights that count, averaged ones, in their place as the training ends.
    """

    has_begun = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.has_begun = True

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.has_begun:
            return
        for each in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(each, StochasticWeightAveraging):  # puts back at the end what its last epoch's begin noted
                each._accumulate_grad_batches = trainer.accumulate_grad_batches
        trainer.fit_loop.on_run_start()
        trainer.fit_loop.on_run_end()


class KeepSigterm(Callback):
    """Leaves SIGTERM to whoever handles it as the training begins.

    Lightning's own handler, set as a loop begins, waits in a broadcast for ranks that may be elsewhere: for ever.
    """

    def __init__(self) -> None:
        self._put_back = keep_sigterm()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._put_back()

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._put_back()
