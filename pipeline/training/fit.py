"""One training: builds data, classifier and Trainer, fits, resumes, tests; is handed its logger."""

import contextlib
import logging
import signal
import statistics
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import Callback, EarlyStopping
from pytorch_lightning.loggers import Logger
from torch import Tensor

from pipeline.config import RunConfig
from pipeline.data.datamodule import MNISTDataModule
from pipeline.divergence import DivergedError
from pipeline.fast_cpu import process
from pipeline.optim.optimizers import make_optimizer
from pipeline.seeding import derive_seed
from pipeline.training import checkpoints
from pipeline.training.building import make_network
from pipeline.training.classifier import DigitClassifier
from pipeline.training.epoch_end import EpochEnd, Metrics, Report, best_epoch
from pipeline.training.steps import OnSteps, StepNews

STEP_NEWS_S = 0.2


@dataclass
class Result:
    """What a training gave.

    Attributes:
        history: epoch (from 1) -> that epoch's metrics.
        test: test_loss and test_accuracy of the final weights.
        diverged_in: the first epoch whose losses or weights are not finite, if there is one.
    """

    classifier: DigitClassifier
    data: MNISTDataModule
    trainer: Trainer
    history: dict[int, Metrics] = field(default_factory=dict)
    test: Metrics = field(default_factory=dict)
    diverged_in: int | None = None


def fit(
    config: RunConfig,
    *,
    data: MNISTDataModule | None = None,
    logger: Logger | bool = False,
    folder: Path | None = None,
    resume_from: Path | None = None,
    report: Report | None = None,
    on_steps: OnSteps | None = None,
) -> Result:
    """Train as the config says, then evaluate the final (or best) weights on the test images.

    Args:
        config: the knobs.
        data: the data module, if it is set up already; else it is built from the config.
        logger: gets each epoch's metrics at step 1, 2, ... and the test metrics at the last; False: nobody does.
        folder: gets the checkpoints; None: none are written (and keep_best has nothing to keep).
        resume_from: a checkpoint to continue.
        report: called with (epoch, metrics) after each epoch.
        on_steps: called with (epoch, steps done, steps, means so far) as an epoch goes on, five times a second at most.

    Raises:
        ValueError: for data that cannot be read, or a Trainer setting that Lightning refuses.
        DivergedError: if a loss or a weight is not finite at an epoch's end and the config says to stop then.
    """
    process.keep_memory()
    process.leave_memory_unfilled()
    process.set_matmul_precision(config.matmul_precision)
    data = data or make_data(config)
    classifier = make_classifier(config)
    epoch_end = EpochEnd(folder, config.keep_best, report, config.on_divergence == "stop")
    with _only_useful_words():
        news = [StepNews(on_steps, STEP_NEWS_S)] if on_steps else []
        trainer = make_trainer(config, logger, [epoch_end, *news])
        try:
            trainer.fit(classifier, datamodule=data, ckpt_path=resume_from)
        except BaseException:
            _end_other_ranks(trainer)
            raise
        if epoch_end.diverged_in and epoch_end.stop_if_diverged:
            _leave_the_group()
            raise DivergedError(epoch_end.diverged_in, epoch_end.history)
        if epoch_end.best_path and (best := best_epoch(epoch_end.history)):
            classifier.load_state_dict(checkpoints.best_weights(epoch_end.best_path.parent, best))
        trainer.test(classifier, datamodule=data, verbose=False)
        _leave_the_group()
    test = {name: trainer.callback_metrics[name].item() for name in ("test_loss", "test_accuracy")}
    if trainer.logger:
        seconds = statistics.median(metrics["epoch_seconds"] for metrics in epoch_end.history.values())
        trainer.logger.log_metrics({**test, "seconds_per_epoch": seconds}, step=max(epoch_end.history))
    return Result(classifier, data, trainer, epoch_end.history, test, epoch_end.diverged_in)


def _leave_the_group() -> None:
    """All ranks together; left to the exit, the group's threads can abort the process."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


def _end_other_ranks(trainer: Trainer) -> None:
    """They wait for this one. Lightning's observer of them is to leave this one alive, which has its record to end."""
    launcher = trainer.strategy.launcher
    if launcher is not None:
        launcher.kill(signal.SIGTERM)
        getattr(launcher, "procs", []).clear()


def make_data(config: RunConfig) -> MNISTDataModule:
    """The data module of the config."""
    return MNISTDataModule(
        config.dataset, config.data_dir, config.batch_size, config.validation_size, config.seed, config.data_name
    )


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
    network = make_network(config)
    return DigitClassifier(network, optimizer, config.batch_size, config.seed)


def make_trainer(config: RunConfig, logger: Logger | bool, callbacks: list[Callback]) -> Trainer:
    """Lightning's Trainer as the config asks for it.

    Raises:
        ValueError: for an accelerator, devices or strategy that are not to be had here.
    """
    if config.early_stopping:
        callbacks = [*callbacks, EarlyStopping("val_loss", patience=config.early_stopping, check_finite=False)]
    try:
        return Trainer(
            max_epochs=config.epochs,
            accelerator=config.accelerator,
            devices=int(config.devices) if config.devices.isdigit() else config.devices,
            strategy=config.strategy,
            precision=config.precision,
            logger=logger,
            callbacks=callbacks,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            deterministic=True,
        )
    except (ValueError, TypeError, RuntimeError, ImportError, MisconfigurationException) as error:
        raise ValueError(_trainer_problem(config, error)) from error


def check_hardware(config: RunConfig) -> int:
    """Make sure that Lightning takes the accelerator, devices, strategy and precision, before a run begins.

    Returns:
        How many processes will train together.

    Raises:
        ValueError: saying what Lightning has against them.
    """
    with _only_useful_words():
        return make_trainer(config, False, []).world_size


def check_shares(data: MNISTDataModule, processes: int) -> None:
    """Make sure that every process gets an image: one without any would wait for ever, or be waited for.

    Raises:
        ValueError: naming the images that are too few.
    """
    parts = {"training": data.train_images, "validation": data.val_images, "test": data.test_images}
    for name, images in parts.items():
        if len(images) < processes:
            raise ValueError(
                f"{processes} processes cannot share {len(images)} {name} image{'s' * (len(images) != 1)}; "
                "take fewer devices, or another validation_size"
            )


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
