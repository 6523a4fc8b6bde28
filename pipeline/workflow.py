"""The train verb: one recorded run, from the first import to the last line on the screen; or the rest of one."""

import errno
import gc
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from pipeline import console, recovery
from pipeline.config import RunConfig
from pipeline.interrupts import Interrupted, interruptions
from pipeline.record import CONFIG, Journal, RunFolder, all_folders, find_folder, new_folder, remove
from pipeline.sender import Sender

if TYPE_CHECKING:
    from pipeline.data import MNISTDataModule
    from pipeline.tracking import RunRecord

KILLED_PATIENCE_S = 6.0
# What Lightning's other processes of a distributed run, which start with the same command, need to know.
RUN_FOLDER, RESUME_FROM = "PIPELINE_RUN_FOLDER", "PIPELINE_RESUME_FROM"


def train(config: RunConfig) -> int:
    """Train, record and register as the config says; returns the exit code.

    Raises:
        ValueError: for input that a user has to change; no run is left behind if none has begun.
    """
    if _is_helper():
        return _train_as_helper()
    _deliver_the_dead(config.runs_dir)
    with interruptions():
        folder = new_folder(config.runs_dir)
        journal = _open_journal(folder)
        sender = Sender(folder)
        try:
            data = _ready_data(config)
            record = _open_record(config, journal, sender, data)
        except BaseException:
            sender.abandon()
            remove(folder)
            raise
        return _train_recorded(config, record, data, resume_from=None)


def resume(run: str, given: Mapping[str, Any], runs_dir: str) -> int:
    """Go on with a run that was interrupted, in the same record, from its last whole epoch; returns the exit code.

    Args:
        run: `last`, a run folder or an MLflow run id.
        given: knobs given anew; only more epochs are taken.
        runs_dir: where to look for the run.

    Raises:
        ValueError: if there is no such run, it is finished or alive, or knobs or data differ.
    """
    if _is_helper():
        return _train_as_helper()
    folder = find_folder(runs_dir, run)
    config = recovery.resumed_config(folder, given)
    with interruptions():
        if folder.ended() is None:
            recovery.close_as_dead(folder)
        changes = {} if config.epochs == recovery.recorded_config(folder).epochs else {"epochs": config.epochs}
        journal = _open_journal(folder)
        sender = Sender(folder)
        try:
            data = _ready_data(config)
            assert data.source is not None
            recovery.check_same_data(folder, data.source.digest)
        except BaseException:
            sender.finish(KILLED_PATIENCE_S)
            raise
        record, checkpoint = _reopen_record(config, journal, sender, changes)
        return _train_recorded(config, record, data, checkpoint)


def local_run_of_mlflow(runs_dir: str) -> str | None:
    """The MLflow run that `mlflow run --run-id` asks to go on with, if its folder is here; else None."""
    run_id = os.environ.get("MLFLOW_RUN_ID")
    known = [folder for folder in all_folders(runs_dir) if run_id and folder.state().get("run_id") == run_id]
    return run_id if known and not _is_helper() else None


def _deliver_the_dead(runs_dir: str) -> None:
    """Put right the status of runs that died without a word, in the background."""
    for folder in recovery.mark_dead_runs(runs_dir):
        print(
            f"run {folder.path.name} had died without a word and is now marked FAILED; go on with it: "
            f"python -m pipeline train --resume {folder.path.name}",
            file=sys.stderr,
        )
        Sender(folder).let_go()


def _open_journal(folder: RunFolder) -> Journal:
    try:
        return Journal(folder)
    except OSError as error:
        raise ValueError(
            f"runs_dir {folder.path.parent} cannot be written ({error}); give another with --runs_dir"
        ) from None


def _ready_data(config: RunConfig) -> "MNISTDataModule":
    """Everything that a user may have to put right, before a record is opened."""
    with _no_garbage_collection():
        from pipeline import training

    training.check_hardware(config)
    data = training.make_data(config)
    data.setup()
    return data


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Import without looking for garbage among half a million new objects, and leave them out of later looks: 0.4 s."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _open_record(config: RunConfig, journal: Journal, sender: Sender, data: "MNISTDataModule") -> "RunRecord":
    from pipeline.tracking import RunRecord

    assert data.source is not None
    record = RunRecord(journal, sender)
    record.start(config, data.source)
    _record_config(config, record)
    return record


def _reopen_record(
    config: RunConfig, journal: Journal, sender: Sender, changes: dict[str, Any]
) -> tuple["RunRecord", Path | None]:
    from pipeline import checkpoints
    from pipeline.tracking import RunRecord

    checkpoint, damaged = checkpoints.latest(journal.folder.checkpoints)
    for path in damaged:
        print(f"warning: checkpoint {path.name} is damaged; falling back to the one before", file=sys.stderr)
    record = RunRecord(journal, sender)
    done = checkpoints.epoch_of(checkpoint) if checkpoint else 0
    record.resume(done, changes)
    _record_config(config, record)
    return record, checkpoint


def _record_config(config: RunConfig, record: "RunRecord") -> None:
    text = yaml.safe_dump(config.as_dict(), sort_keys=False)
    (record.folder.path / CONFIG).write_text(text)
    record.text_artifact(CONFIG, text)


def _train_recorded(config: RunConfig, record: "RunRecord", data: "MNISTDataModule", resume_from: Path | None) -> int:
    verbose = console.verbosity(config)
    try:
        test = _fit_and_record(config, record, data, resume_from, verbose)
        record.end("FINISHED")
    except Interrupted as interruption:
        record.end("KILLED", str(interruption))
        delivered = record.sender.finish(KILLED_PATIENCE_S)
        if verbose:
            name = record.folder.path.name
            print(f"stopped by {interruption}; go on with: python -m pipeline train --resume {name}", flush=True)
        console.tell_delivery(record.folder, delivered)
        return interruption.exit_code
    except Exception as error:
        record.fail(error)
        console.tell_delivery(record.folder, record.sender.finish())
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            return _tell_full_disk(record)
        raise
    delivered = record.sender.finish()
    if record.journal.held:
        return _tell_full_disk(record)
    if verbose:
        console.tell_result(config, record.folder, test)
    console.tell_delivery(record.folder, delivered)
    return 0


def _fit_and_record(
    config: RunConfig, record: "RunRecord", data: "MNISTDataModule", resume_from: Path | None, verbose: int
) -> dict[str, float]:
    from pipeline import training
    from pipeline.outcome import write_outcome
    from pipeline.tracking import RunLogger

    os.environ |= {RUN_FOLDER: str(record.folder.path), RESUME_FROM: str(resume_from or "")}
    reports: dict[int, Callable[[int, dict[str, float]], None]] = {
        1: console.TroubleLines(record.journal),
        2: console.EpochLines(config.epochs, record.journal),
    }
    result = training.fit(
        config,
        data=data,
        logger=RunLogger(record),
        folder=record.folder.checkpoints,
        resume_from=resume_from,
        report=reports.get(verbose),
        progress_bar=verbose == 1,
    )
    write_outcome(config, record, result)
    return result.test


def _tell_full_disk(record: "RunRecord") -> int:
    folder = record.folder.path
    print(
        f"pipeline: no space left on the disk of {folder}; make room, then go on with: "
        f"python -m pipeline train --resume {folder.name} --runs_dir {console.shown(folder.parent)}",
        file=sys.stderr,
    )
    return 1


def _is_helper() -> bool:
    """Whether this process is one that Lightning started to help a distributed run."""
    return os.environ.get("LOCAL_RANK", "0") != "0"


def _train_as_helper() -> int:
    """Train along; the record is rank 0's."""
    from pipeline import training

    folder = RunFolder(os.environ[RUN_FOLDER])
    config = RunConfig.from_mapping(yaml.safe_load((folder.path / CONFIG).read_text()))
    resume_from = os.environ[RESUME_FROM]
    training.fit(config, folder=folder.checkpoints, resume_from=Path(resume_from) if resume_from else None)
    return 0
