"""The train verb: one recorded run, from the first import to the last line on the screen; or the rest of one."""

import errno
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import console, preflight, recovery
from pipeline.config import RunConfig
from pipeline.divergence import DivergedError
from pipeline.interrupts import Interrupted, interruptions
from pipeline.launchers import is_helper
from pipeline.record import RunFolder, all_folders, find_folder, new_folder, remove
from pipeline.recording import (
    Report,
    fit_and_record,
    open_journal,
    open_record,
    ready,
    reopen_record,
    train_as_helper,
)
from pipeline.sender import Sender
from pipeline.shell import DONE, NOT_ALL, command
from pipeline.tracking_uri import keep_store

if TYPE_CHECKING:
    from pipeline.data import MNISTDataModule
    from pipeline.tracking import RunRecord

KILLED_PATIENCE_S = 6.0


def train(config: RunConfig) -> int:
    """Train, record and register as the config says; returns the exit code.

    Raises:
        ValueError: for input that a user has to change; no run is left behind if none has begun.
    """
    if is_helper():
        return train_as_helper()
    preflight.check(config.as_dict())
    deliver_the_dead(config.runs_dir)
    with interruptions():
        folder = new_folder(config.runs_dir)
        journal = open_journal(folder)
        sender = Sender(folder)
        try:
            config, data = ready(config)
            record = open_record(config, journal, sender, data)
        except BaseException:
            sender.abandon()
            remove(folder)
            raise
        return _train_recorded(config, record, sender, data, resume_from=None)


def resume(run: str, given: Mapping[str, Any], runs_dir: str) -> int:
    """Go on with a run that was interrupted, in the same record, from its last whole epoch; returns the exit code.

    Args:
        run: `last`, a run folder or an MLflow run id.
        given: knobs given anew; only more epochs are taken.
        runs_dir: where to look for the run.

    Raises:
        ValueError: if there is no such run, it is finished or alive, or knobs or data differ.
    """
    if is_helper():
        return train_as_helper()
    folder = find_folder(runs_dir, run)
    config = recovery.resumed_config(folder, given)
    check_record(folder)
    with interruptions():
        if folder.ended() is None:
            recovery.close_as_dead(folder)
        journal = open_journal(folder)
        sender = Sender(folder)
        try:
            config, data = ready(config)
            record, checkpoint = reopen_record(config, journal, sender, data)
        except BaseException:
            sender.finish(KILLED_PATIENCE_S)
            raise
        return _train_recorded(config, record, sender, data, checkpoint)


def check_record(folder: RunFolder) -> None:
    """Make sure that the record of a run that is gone on with can be delivered.

    Raises:
        ValueError: if the store is known not to have the run.
    """
    start, state = folder.started() or {}, folder.state()
    keep_store(state)
    run_id = state.get("run_id") or start.get("mlflow_run_id") or ""
    preflight.check_store(start.get("experiment_name", ""), run_id, folder.path.name)


def local_run_of_mlflow(runs_dir: str) -> str | None:
    """The MLflow run that `mlflow run --run-id` asks to go on with, if its folder is here; else None."""
    run_id = os.environ.get("MLFLOW_RUN_ID")
    known = [folder for folder in all_folders(runs_dir) if run_id and folder.state().get("run_id") == run_id]
    return run_id if known and not is_helper() else None


def deliver_the_dead(runs_dir: str) -> None:
    """Put right the status of runs that died without a word, in the background."""
    for folder in recovery.mark_dead_runs(runs_dir):
        start = folder.started()
        experiment = start["tags"].get("experiment") if start else None
        words = ("experiment", "FILE") if experiment else ("train", "--resume", folder.path.name)
        what = f"run {folder.path.name}" + (f" of experiment {experiment}" if experiment else "")
        print(
            f"{what} had died without a word and is now marked FAILED; "
            f"go on with it: {command(*words, runs_dir=runs_dir)}",
            file=sys.stderr,
        )
        Sender(folder).let_go()


def _train_recorded(
    config: RunConfig, record: "RunRecord", sender: Sender, data: "MNISTDataModule", resume_from: Path | None
) -> int:
    verbose = console.verbosity(config)
    bar = console.BarAndTrouble(config.epochs, record.journal)
    reports: dict[int, Report] = {1: bar, 2: console.EpochLines(config.epochs, record.journal)}
    try:
        on_steps = bar.step if verbose == 1 else None
        with bar:
            test = fit_and_record(config, record, data, resume_from, reports.get(verbose), on_steps)
        record.end("FINISHED")
    except Interrupted as interruption:
        record.end("KILLED", str(interruption))
        delivered = sender.finish(KILLED_PATIENCE_S)
        if verbose:
            print(f"stopped by {interruption}; go on with: {_resume_command(record)}", flush=True)
        console.tell_delivery(record.folder, delivered)
        return interruption.exit_code
    except DivergedError as error:
        record.end("FAILED", str(error))
        delivered = sender.finish()
        print(f"pipeline: run {record.folder.path.name} {error}", file=sys.stderr)
        console.tell_delivery(record.folder, delivered)
        return NOT_ALL
    except Exception as error:
        record.fail(error)
        console.tell_delivery(record.folder, sender.finish())
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            return _tell_full_disk(record)
        raise
    delivered = sender.finish()
    if record.journal.held:
        return _tell_full_disk(record)
    if verbose:
        console.tell_result(config, record.folder, test)
    return NOT_ALL if console.tell_delivery(record.folder, delivered) else DONE


def _tell_full_disk(record: "RunRecord") -> int:
    print(
        f"pipeline: no space left on the disk of {record.folder.path}; make room, then go on with: "
        f"{_resume_command(record)}",
        file=sys.stderr,
    )
    return 1


def _resume_command(record: "RunRecord") -> str:
    folder = record.folder.path
    return command("train", "--resume", folder.name, runs_dir=folder.parent)
