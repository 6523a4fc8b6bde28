"""One training, as Lightning has it: data, module, Trainer; fitted, resumed, tested."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import Logger

from pipeline.config import RunConfig
from pipeline.data.datamodule import DataModule
from pipeline.divergence import DivergedError
from pipeline.fast_cpu import blocks, process
from pipeline.seeding import derive_seed
from pipeline.training import checkpoints
from pipeline.training.building import make_callbacks, make_classifier, make_data
from pipeline.training.callbacks import (
    BeginsAndEnds,
    DataAtHand,
    DivergenceStop,
    EpochCheckpoints,
    EpochSeeds,
    EpochTimer,
    KeepSigterm,
    RateLog,
    StaysStopped,
    seed_generators,
)
from pipeline.training.classifier import Classifier
from pipeline.training.history import AtEpochs, History, Metrics, best_epoch, once
from pipeline.training.trainer import leave_the_group, make_trainer, only_useful_words, other_ranks_ended


@dataclass
class Result:
    """What a training gave.

    Attributes:
        history: epoch (from 1) -> that epoch's metrics.
        test: test_loss, test_accuracy and what else was logged of the test, of the final weights.
        diverged_in: the first epoch whose losses or weights are not finite, if there is one.
    """

    classifier: Classifier
    data: DataModule
    trainer: Trainer
    history: dict[int, Metrics] = field(default_factory=dict)
    test: Metrics = field(default_factory=dict)
    diverged_in: int | None = None


class FastClassifier(blocks.BlockSteps, Classifier):  # type: ignore[misc]
    """The classifier where one CPU trains: the same numbers, sooner."""


def fit(
    config: RunConfig,
    *,
    data: DataModule | None = None,
    logger: Logger | Literal[False] = False,
    folder: Path | None = None,
    resume_from: Path | None = None,
    callbacks: Sequence[Callback] = (),
    fast_cpu: bool = True,
    **trainer_options: Any,
) -> Result:
    """Train as the config says, then evaluate the final (or best) weights on the test images.

    Args:
        config: the knobs.
        data: the data module; else it is built from the config.
        logger: gets each epoch's metrics at step 1, 2, ... and the test metrics at the last; False: nobody does.
        folder: gets the checkpoints; None: none are written (and keep_best has nothing to keep).
        resume_from: a checkpoint to continue.
        callbacks: more of them; at an epoch's end `Checkpoint`s are called when it is logged and saved.
        fast_cpu: whether to train without autograd where that gives the same numbers.
        trainer_options: for Lightning's Trainer.

    Raises:
        ValueError: for data that cannot be read, or a Trainer setting that Lightning refuses.
        DivergedError: if a loss or a weight is not finite at an epoch's end and the config says to stop then.
    """
    process.prepare(config.matmul_precision)
    seed_generators(derive_seed(config.seed, "weights"))  # callbacks and networks may draw as they are built
    data = data or make_data(config)
    history, divergence = History(logger or None), DivergenceStop(config.on_divergence == "stop")
    ours: list[Callback] = [EpochSeeds(config.seed), DataAtHand(data), RateLog(), EpochTimer(), KeepSigterm()]
    ours += [StaysStopped(), BeginsAndEnds(), history, divergence]
    if folder:
        ours.append(EpochCheckpoints(folder, config.keep_best, divergence))
    with only_useful_words():
        everyone = [*ours, *callbacks, *make_callbacks(config.callback)]
        trainer = make_trainer(config, AtEpochs(logger or None), everyone, **trainer_options)
        classifier, loaders = _module_and_loaders(config, data, trainer, fast_cpu)
        with other_ranks_ended(trainer):
            trainer.fit(classifier, **loaders, ckpt_path=resume_from)
        if divergence.epoch and divergence.stop:
            leave_the_group()
            raise DivergedError(divergence.epoch, history.epochs)
        if folder and config.keep_best and (best := best_epoch(history.epochs)):
            classifier.load_state_dict(checkpoints.best_weights(folder, best))
        trainer.test(classifier, datamodule=data, verbose=False)
        leave_the_group()
    test = once(trainer.callback_metrics)
    if logger:
        seconds = statistics.median(metrics["epoch_seconds"] for metrics in history.epochs.values())
        logger.log_metrics({**test, "seconds_per_epoch": seconds}, step=max(history.epochs))
    return Result(classifier, data, trainer, history.epochs, test, divergence.epoch)


def _module_and_loaders(
    config: RunConfig, data: DataModule, trainer: Trainer, fast_cpu: bool
) -> tuple[Classifier, dict[str, Any]]:
    """The module, and where `Trainer.fit` takes the data from: the fast ones where they do, or the plain ones."""
    data.setup()
    assert data.source is not None
    classifier = make_classifier(config, data.source.spec)
    if not fast_cpu or trainer.world_size > 1:
        return classifier, {"datamodule": data}
    largest = min(config.batch_size, len(data.train_examples))
    if by_hand := blocks.by_hand(trainer, classifier, largest):
        parts = classifier.network, classifier.make_optimizer, classifier.factor, classifier.augment
        fast = FastClassifier(*parts, classifier.measures, derive=by_hand, batch_size=config.batch_size)
        train = blocks.in_blocks(data.train_dataloader(), config.batch_size)
        return fast, {"train_dataloaders": train, "val_dataloaders": data.val_dataloader()}
    return classifier, {"datamodule": data}
