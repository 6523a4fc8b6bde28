"""A training with its record: opened, filled epoch by epoch, given its outcome. What every verb that trains shares."""

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from pipeline import divergence
from pipeline.config import RunConfig
from pipeline.divergence import DivergedError
from pipeline.imports import gc_paused
from pipeline.launchers import RESUME_FROM, RUN_FOLDER
from pipeline.signals import leave_signals_to_the_first_process
from pipeline.terminal.shell import DONE, NOT_ALL
from pipeline.tracking import recovery
from pipeline.tracking.folders import CONFIG, Journal, RunFolder
from pipeline.tracking.uploader import Uploader

if TYPE_CHECKING:
    from pipeline.data.datamodule import MNISTDataModule
    from pipeline.tracking.run import RunRecord

Report = Callable[[int, dict[str, float]], None]
OnSteps = Callable[[int, int, int, dict[str, float]], None]


def open_journal(folder: RunFolder) -> Journal:
    """The folder's journal.

    Raises:
        ValueError: if the folder cannot be written, or another process holds it.
    """
    try:
        return Journal(folder)
    except OSError as error:
        raise ValueError(
            f"runs_dir {folder.path.parent} cannot be written ({error}); give another with --runs_dir"
        ) from None


def ready(config: RunConfig) -> tuple[RunConfig, "MNISTDataModule"]:
    """Everything that a user may have to put right, before a record is opened; the config with its names settled."""
    if "pipeline.training.fit" not in sys.modules:
        with gc_paused():
            import pipeline.training.fit  # noqa: F401
    from pipeline.training import building, fit

    processes = fit.check_hardware(config)
    data = fit.make_data(config)
    data.setup()
    fit.check_shares(data, processes)
    building.check_size(config, len(data.train_images))
    return building.settled(config), data


def open_record(
    config: RunConfig,
    journal: Journal,
    sender: Uploader,
    data: "MNISTDataModule",
    tags: Mapping[str, str] | None = None,
    parent: str = "",
) -> "RunRecord":
    """Begin the record of a new run; `parent` is the name of the folder of the run that it belongs to."""
    from pipeline.tracking.run import RunRecord

    assert data.source is not None
    record = RunRecord(journal, sender)
    record.start(config, data.source, tags or {}, parent)
    _record_config(config, record)
    return record


def reopen_record(
    config: RunConfig, journal: Journal, sender: Uploader, data: "MNISTDataModule"
) -> tuple["RunRecord", Path | None]:
    """Go on with the record of an interrupted run; returns it and the checkpoint to continue, if there is one.

    Raises:
        ValueError: if the data is not that which the run began with.
    """
    from pipeline.tracking.run import RunRecord
    from pipeline.training import checkpoints

    assert data.source is not None
    folder = journal.folder
    recovery.check_same_data(folder, data.source.digest)
    changes = {} if config.epochs == recovery.recorded_config(folder).epochs else {"epochs": config.epochs}
    checkpoint = _checkpoint_to_continue(folder, config)
    record = RunRecord(journal, sender)
    record.resume(checkpoints.epoch_of(checkpoint) if checkpoint else 0, changes)
    _record_config(config, record)
    return record, checkpoint


def _checkpoint_to_continue(folder: RunFolder, config: RunConfig) -> Path | None:
    """The newest whole checkpoint; none, if the best epoch that it knows of has to be trained again."""
    from pipeline.training import checkpoints, epoch_end

    for words in recovery.losses(folder):
        print(f"warning: {folder.path.name}: {words}", file=sys.stderr)
    checkpoint, damaged = checkpoints.latest(folder.checkpoints)
    for path in damaged:
        print(f"warning: checkpoint {path.name} is damaged; falling back to the one before", file=sys.stderr)
    if checkpoint and config.keep_best and not epoch_end.best_is_kept(checkpoint):
        print("warning: the weights of the best epoch are lost; training again from the first one", file=sys.stderr)
        return None
    return checkpoint


def _record_config(config: RunConfig, record: "RunRecord") -> None:
    text = recovery.config_text(config)
    (record.folder.path / CONFIG).write_text(text)
    record.text_artifact(CONFIG, text)


def fit_and_record(
    config: RunConfig,
    record: "RunRecord",
    data: "MNISTDataModule",
    resume_from: Path | None,
    report: Report | None = None,
    on_steps: OnSteps | None = None,
) -> dict[str, float]:
    """Train, record every epoch and what a finished training leaves; returns the test metrics.

    Raises:
        DivergedError: if the training diverged and stopped; its epoch is recorded.
    """
    from pipeline.tracking.run import RunLogger
    from pipeline.training import fit
    from pipeline.training.results import write_outcome

    os.environ |= {RUN_FOLDER: str(record.folder.path), RESUME_FROM: str(resume_from or "")}
    try:
        result = fit.fit(
            config,
            data=data,
            logger=RunLogger(record),
            folder=record.folder.checkpoints,
            resume_from=resume_from,
            report=report,
            on_steps=on_steps,
        )
    except DivergedError as error:
        record.tags({divergence.TAG: str(error.epoch)})
        raise
    if result.diverged_in:
        record.tags({divergence.TAG: str(result.diverged_in)})
    write_outcome(config, record, result)
    return result.test


def train_as_helper() -> int:
    """Train along; the record is rank 0's."""
    from pipeline.training import fit

    leave_signals_to_the_first_process()
    folder = RunFolder(os.environ[RUN_FOLDER])
    config = RunConfig.from_mapping(yaml.safe_load((folder.path / CONFIG).read_text()))
    resume_from = os.environ[RESUME_FROM]
    try:
        fit.fit(config, folder=folder.checkpoints, resume_from=Path(resume_from) if resume_from else None)
    except DivergedError:  # rank 0 says so
        return NOT_ALL
    return DONE
