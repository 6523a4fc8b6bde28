"""A training with its record: begun or gone on with, filled epoch by epoch, given its results."""

import contextlib
import functools
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from pipeline import divergence
from pipeline.config import RunConfig, own_code
from pipeline.divergence import DivergedError
from pipeline.files import epoch_of, our_checkpoints
from pipeline.imports import gc_paused
from pipeline.launchers import RESUME_FROM, RUN_FOLDER, has_partners, is_partner
from pipeline.recording.code_digest import code_digest
from pipeline.recording.description import dataset_inputs, identity_tags
from pipeline.recording.resuming import config_text, recorded_config
from pipeline.signals import leave_signals_to_the_first_process
from pipeline.terminal.shell import DONE, NOT_ALL
from pipeline.tracking import recovery
from pipeline.tracking.journal import CONFIG, Journal, RunFolder
from pipeline.tracking.provenance import git_tags, machine_tags
from pipeline.tracking.run import Run

if TYPE_CHECKING:
    from pipeline.data.datamodule import DataModule
    from pipeline.data.dataset import Dataset
    from pipeline.training.news import OnSteps, Report

# What Lightning may refuse.
HARDWARE = ("accelerator", "devices", "num_nodes", "strategy", "precision", "gradient_clip")


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


def ready(config: RunConfig, source: "Dataset | None" = None) -> tuple[RunConfig, "DataModule"]:
    """Everything that a user may have to put right, before a record is opened; the config with its names settled.

    Args:
        config: the knobs.
        source: its data, if somebody has read them already.
    """
    if "pipeline.training.fit" not in sys.modules:
        with gc_paused():
            import pipeline.training.fit  # noqa: F401
    from pipeline.training import building, rehearsal

    processes = _processes(*(getattr(config, name) for name in HARDWARE))
    data = building.make_data(config)
    data.source = source
    data.setup()
    building.check_shares(data, processes)
    assert data.source is not None
    building.check_size(config, data.source.spec, len(data.train_examples))
    rehearsal.rehearse(config, data, processes)
    return config.settled(), data


@functools.lru_cache
def _processes(*hardware: Any) -> int:
    """How many processes will train together; looked for once, which takes Lightning 0.04 s."""
    from pipeline.training import trainer

    return trainer.check_hardware(RunConfig(**dict(zip(HARDWARE, hardware, strict=True))))


def start(
    config: RunConfig,
    run: Run,
    data: "DataModule",
    tags: Mapping[str, str] | None = None,
    parent: str = "",
) -> None:
    """Begin the record of a training: every knob, what is trained on, from what code, with what packages, where.

    Args:
        config: the knobs, settled.
        run: whose record it is.
        data: the data module, set up.
        tags: more tags than every run gets.
        parent: name of the folder of the run that this one belongs to, or nothing.
    """
    assert data.source is not None
    everywhere = {**identity_tags(config), "code": code_digest(config.own_code()), **machine_tags()}
    inputs = dataset_inputs(data.source, config.validation_size)
    run.start(config.experiment_name, config.as_dict(), {**everywhere, **(tags or {})}, parent=parent, datasets=inputs)
    run.provenance()
    _record_config(config, run)


def resume(config: RunConfig, run: Run, data: "DataModule") -> Path | None:
    """Go on with the record of an interrupted training; returns the checkpoint to continue, if there is one.

    Raises:
        ValueError: if the data is not that which the run began with.
    """
    assert data.source is not None
    recovery.check_same_data(run.folder, data.source.digest)
    changes = {} if config.epochs == recorded_config(run.folder).epochs else {"epochs": config.epochs}
    checkpoint = _checkpoint_to_continue(run.folder, config)
    tags = {"resumed_after_epoch": str(epoch_of(checkpoint) if checkpoint else 0)}
    tags |= {
        f"resumed.{name}": str(value)
        for name, value in {**git_tags(), "code": code_digest(config.own_code()), **changes}.items()
    }
    run.resume(changes, tags)
    run.provenance()
    _record_config(config, run)
    return checkpoint


def _checkpoint_to_continue(folder: RunFolder, config: RunConfig) -> Path | None:
    """The newest whole checkpoint; none, if the best epoch that it knows of has to be trained again."""
    from pipeline.training import checkpoints, history

    for words in recovery.losses(folder):
        print(f"warning: {folder.path.name}: {words}", file=sys.stderr)
    checkpoint, damaged = checkpoints.latest(folder.checkpoints)
    for path in damaged:
        print(f"warning: checkpoint {path.name} is damaged; falling back to the one before", file=sys.stderr)
    if checkpoint and config.keep_best and not history.best_is_kept(checkpoint):
        print("warning: the weights of the best epoch are lost; training again from the first one", file=sys.stderr)
        return None
    return checkpoint


def _record_config(config: RunConfig, run: Run) -> None:
    text = config_text(config)
    (run.folder.path / CONFIG).write_text(text)
    run.text_artifact(CONFIG, text)


def fit_and_record(
    config: RunConfig,
    run: Run,
    data: "DataModule",
    resume_from: Path | None,
    report: "Report | None" = None,
    on_steps: "OnSteps | None" = None,
    *,
    draw: bool = True,
) -> dict[str, float]:
    """Train, record every epoch and what a finished training leaves; returns the test metrics.

    Args:
        config: the knobs, settled.
        run: whose record it is, begun or gone on with.
        data: the data module, set up.
        resume_from: a checkpoint to continue.
        report, on_steps: hear of each epoch, and of steps.
        draw: whether a full record's tables and pictures are drawn here; else somebody does it later.

    Raises:
        DivergedError: if the training diverged and stopped; its epoch and the end are recorded.
    """
    from pipeline.recording.epoch_logger import EpochLogger
    from pipeline.recording.export_trial import ExportTrial
    from pipeline.recording.results import record_results
    from pipeline.training import fit
    from pipeline.training.news import EpochNews, StepNews

    assert data.source is not None
    told = [EpochNews(report)] if report else []
    news = [StepNews(on_steps)] if on_steps else []
    is_tried = own_code.is_own(config.network) and config.registered_as and resume_from is None
    trial = [ExportTrial(config, data.source)] if is_tried else []
    _tell_helpers(config, run, resume_from)
    try:
        result = fit.fit(
            config,
            data=data,
            logger=EpochLogger(run),
            folder=run.folder.checkpoints,
            resume_from=resume_from,
            callbacks=[*told, *trial, *news],
        )
    except DivergedError as error:
        run.tags({divergence.TAG: str(error.epoch)})
        run.end("FAILED", str(error))
        raise
    if result.diverged_in:
        run.tags({divergence.TAG: str(result.diverged_in)})
    record_results(config, run, result, draw=draw)
    return result.test


def _tell_helpers(config: RunConfig, run: Run, resume_from: Path | None) -> None:
    """Tell the processes that will train along, started here or by a launcher, of the run and where it goes on."""
    from pipeline.training import trainer

    where = {RUN_FOLDER: str(run.folder.path), RESUME_FROM: str(resume_from or "")}
    os.environ |= where
    if has_partners():
        trainer.tell_partners({"config": config.as_dict(), **where})


def forget_checkpoints(folder: RunFolder) -> None:
    """Delete the checkpoints of a finished run: nothing goes on from them. What a callback saved beside them stays."""
    if (end := folder.ended()) and end["status"] == "FINISHED":
        with contextlib.suppress(OSError):
            for path in our_checkpoints(folder.checkpoints):
                path.unlink()
            folder.checkpoints.rmdir()  # refused where something is left


def train_as_helper() -> int:
    """Train along; the record is rank 0's."""
    from pipeline.training import fit, trainer

    leave_signals_to_the_first_process()
    if is_partner():
        told = trainer.tell_partners(None)
    else:
        text = (Path(os.environ[RUN_FOLDER]) / CONFIG).read_text()
        told = {**os.environ, "config": yaml.safe_load(text)}
    folder, resume_from = RunFolder(told[RUN_FOLDER]), told[RESUME_FROM]
    config = RunConfig.from_mapping(told["config"])
    try:
        fit.fit(config, folder=folder.checkpoints, resume_from=Path(resume_from) if resume_from else None)
    except DivergedError:  # rank 0 says so
        return NOT_ALL
    return DONE
