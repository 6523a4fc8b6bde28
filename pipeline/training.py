"""One training: builds data, classifier and Trainer, fits, resumes, tests; is handed its logger."""

import contextlib
import logging
import math
import signal
import statistics
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Callback, Checkpoint, EarlyStopping, TQDMProgressBar
from pytorch_lightning.loggers import Logger
from torch import Tensor

from pipeline import checkpoints, speed
from pipeline.classifier import DigitClassifier
from pipeline.config import RunConfig
from pipeline.data import MNISTDataModule
from pipeline.network import MLP
from pipeline.optimizer import make_optimizer
from pipeline.randomness import derive_seed

Metrics = dict[str, float]
Report = Callable[[int, Metrics], None]


@dataclass
class Result:
    """What a training gave.

    Attributes:
        history: epoch (from 1) -> that epoch's metrics.
        test: test_loss and test_accuracy of the final weights.
    """

    classifier: DigitClassifier
    data: MNISTDataModule
    trainer: Trainer
    history: dict[int, Metrics] = field(default_factory=dict)
    test: Metrics = field(default_factory=dict)


class EpochEnd(Checkpoint):
    """What happens when an epoch has ended, in this order: it is logged, saved, told.

    A `Checkpoint`, because those are the callbacks that Lightning calls after the module has logged its means.
    """

    def __init__(self, folder: Path | None, keep_best: bool, report: Report | None) -> None:
        """Save checkpoints to the folder, if there is one; report (epoch, metrics)."""
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
        """Start the clock."""
        self._began = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log, save and tell the epoch."""
        names = ("train_loss", "train_accuracy", "val_loss", "val_accuracy")
        metrics = {name: trainer.callback_metrics[name].item() for name in names}
        metrics["epoch_seconds"] = time.perf_counter() - self._began
        before = max((earlier["time_ms"] for earlier in self.history.values()), default=0)
        metrics["time_ms"] = max(before, time.time_ns() // 1_000_000)
        epoch = trainer.current_epoch + 1
        self.history[epoch] = metrics
        if trainer.logger:
            trainer.logger.log_metrics(metrics, step=epoch)
        if self.folder:
            self._save_if_it_can(trainer, self.folder, epoch, metrics["val_loss"])
        if self.report and trainer.is_global_zero:
            self.report(epoch, metrics)

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
        """Take up the history of the checkpoint."""
        self.history, self.best_loss = dict(state_dict["history"]), state_dict["best_loss"]


def fit(
    config: RunConfig,
    *,
    data: MNISTDataModule | None = None,
    logger: Logger | bool = False,
    folder: Path | None = None,
    resume_from: Path | None = None,
    report: Report | None = None,
    progress_bar: bool = False,
) -> Result:
    """Train as the config says, then evaluate the final (or best) weights on the test images.

    Args:
        config: the knobs.
        data: the data module, if it is set up already; else it is built from the config.
        logger: gets each epoch's metrics at step 1, 2, ... and the test metrics at the last; False: nobody does.
        folder: gets the checkpoints; None: none are written (and keep_best has nothing to keep).
        resume_from: a checkpoint to continue.
        report: called with (epoch, metrics) after each epoch.
        progress_bar: show Lightning's.

    Raises:
        ValueError: for data that cannot be read, or a Trainer setting that Lightning refuses.
    """
    speed.keep_memory()
    speed.leave_memory_unfilled()
    speed.set_matmul_precision(config.matmul_precision)
    data = data or make_data(config)
    classifier = make_classifier(config)
    epoch_end = EpochEnd(folder, config.keep_best, report)
    with _only_useful_words():
        trainer = make_trainer(config, logger, [epoch_end], progress_bar)
        try:
            trainer.fit(classifier, datamodule=data, ckpt_path=resume_from)
        except BaseException:
            _end_other_ranks(trainer)
            raise
        if epoch_end.best_path and (best := best_epoch(epoch_end.history)):
            classifier.load_state_dict(checkpoints.best_weights(epoch_end.best_path.parent, best))
        trainer.test(classifier, datamodule=data, verbose=False)
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.barrier()
            torch.distributed.destroy_process_group()  # left to the exit, its threads can abort the process
    test = {name: trainer.callback_metrics[name].item() for name in ("test_loss", "test_accuracy")}
    if trainer.logger:
        seconds = statistics.median(metrics["epoch_seconds"] for metrics in epoch_end.history.values())
        trainer.logger.log_metrics({**test, "seconds_per_epoch": seconds}, step=max(epoch_end.history))
    return Result(classifier, data, trainer, epoch_end.history, test)


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


def _end_other_ranks(trainer: Trainer) -> None:
    """They wait for this one. Lightning's observer of them is to leave this one alive, which has its record to end."""
    launcher = trainer.strategy.launcher
    if launcher is not None:
        launcher.kill(signal.SIGTERM)
        getattr(launcher, "procs", []).clear()


def make_data(config: RunConfig) -> MNISTDataModule:
    """The data module of the config."""
    return MNISTDataModule(config.dataset, config.data_dir, config.batch_size, config.validation_size, config.seed)


def make_classifier(config: RunConfig) -> DigitClassifier:
    """The classifier of the config, its weights drawn from the seed."""

    def optimizer(parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
        return make_optimizer(
            config.optimizer,
            parameters,
            learning_rate=config.learning_rate,
            rho=config.rho,
            epsilon=config.epsilon,
            momentum=config.momentum,
        )

    torch.manual_seed(derive_seed(config.seed, "weights"))
    network = MLP(config.hidden_units, config.hidden_layers, config.dropout)
    return DigitClassifier(network, optimizer, config.batch_size, config.seed)


def make_trainer(config: RunConfig, logger: Logger | bool, callbacks: list[Callback], progress_bar: bool) -> Trainer:
    """Lightning's Trainer as the config asks for it.

    Raises:
        ValueError: for an accelerator, devices or strategy that are not to be had here.
    """
    if config.early_stopping:
        callbacks = [*callbacks, EarlyStopping("val_loss", patience=config.early_stopping, verbose=False)]
    if progress_bar:
        callbacks = [*callbacks, TQDMProgressBar(refresh_rate=20)]
    try:
        return Trainer(
            max_epochs=config.epochs,
            accelerator=config.accelerator,
            devices=int(config.devices) if config.devices.isdigit() else config.devices,
            strategy=config.strategy,
            precision=config.precision,  # type: ignore[arg-type]
            logger=logger,
            callbacks=callbacks,
            enable_progress_bar=progress_bar,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            deterministic=True,
        )
    except (ValueError, TypeError, RuntimeError, ImportError, MisconfigurationException) as error:
        raise ValueError(_trainer_problem(config, error)) from error


def check_hardware(config: RunConfig) -> None:
    """Make sure that Lightning takes the accelerator, devices, strategy and precision, before a run begins.

    Raises:
        ValueError: saying what Lightning has against them.
    """
    with _only_useful_words():
        make_trainer(config, False, [], progress_bar=False)


def _trainer_problem(config: RunConfig, error: Exception) -> str:
    names = ("accelerator", "devices", "strategy", "precision")
    given = ", ".join(f"{name} {getattr(config, name)}" for name in names)
    return f"Lightning cannot train with {given} here: {error}"


@contextlib.contextmanager
def _only_useful_words() -> Iterator[None]:
    """Keep back Lightning's banners and the warnings that a user of this pipeline cannot act on."""
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        for message in (
            ".*does not have many workers.*",
            ".*Checkpoint directory.*",
            ".*GPU available but not used.*",
            ".*LeafSpec.*",
            ".*logging interval.*",
            ".*sync_dist=True.*",  # the means are reduced over all ranks before they are logged
            ".*recommended to use `Trainer\\(devices=1.*",  # no image is evaluated twice, see data.py
        ):
            warnings.filterwarnings("ignore", message)
        yield
