"""The subcommand train: one recorded run, from the first import to the last line on the screen; or the rest of one."""

import errno
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.config import RunConfig
from pipeline.delivery import console
from pipeline.divergence import DivergedError
from pipeline.launchers import is_helper
from pipeline.mlflow_client import preflight
from pipeline.mlflow_client.tracking_uri import keep_store
from pipeline.recording import record
from pipeline.recording.record import fit_and_record, forget_checkpoints, open_journal, ready, train_as_helper
from pipeline.recording.resuming import resumed_config
from pipeline.signals import Interrupted, interruptions
from pipeline.terminal.shell import DONE, NOT_ALL, command
from pipeline.tracking import recovery
from pipeline.tracking.folders import all_folders, find_folder, new_folder, remove
from pipeline.tracking.journal import Journal, RunFolder
from pipeline.tracking.run import Run
from pipeline.tracking.uploader import KILLED_PATIENCE_S, UploaderProcess

if TYPE_CHECKING:
    from pipeline.data.datamodule import DataModule
    from pipeline.training.news import Report

Begin = Callable[[RunConfig, Run, "DataModule"], Path | None]


def train(config: RunConfig) -> int:
    """Train, record and register as the config says; returns the exit code.

    Raises:
        ValueError: for input that a user has to change; no run is left behind if none has begun.
    """
    if is_helper():
        return train_as_helper()
    preflight.check(config.as_dict())
    recovery.deliver_what_others_left(config.runs_dir)
    with interruptions():
        return _train_recorded(config, open_journal(new_folder(config.runs_dir)), record.start)


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
    config = resumed_config(folder, given)
    check_record(folder)
    with interruptions():
        if folder.ended() is None:
            recovery.close_as_dead(folder)
        return _train_recorded(config, open_journal(folder), record.resume)


def check_record(folder: RunFolder) -> None:
    """Make sure that the record of a run that is gone on with can be delivered.

    Raises:
        ValueError: if the store is known not to have the run.
    """
    start, state = folder.started() or {}, folder.state()
    keep_store(state)
    run_id = state.get("run_id") or start.get("mlflow_run_id") or ""
    preflight.check_store(start.get("experiment_name", ""), run_id, folder.path)


def local_run_of_mlflow(runs_dir: str) -> str | None:
    """The MLflow run that `mlflow run --run-id` asks to go on with, if its folder is here; else None."""
    run_id = os.environ.get("MLFLOW_RUN_ID")
    known = [folder for folder in all_folders(runs_dir) if run_id and folder.state().get("run_id") == run_id]
    return run_id if known and not is_helper() else None


def _train_recorded(config: RunConfig, journal: Journal, begin: Begin) -> int:
    """Train with a record that `begin` starts or resumes, tell how it went; returns the exit code."""
    uploader = _uploader_of(journal)
    try:
        return _train(config, journal, uploader, begin)
    finally:
        journal.close()


def _train(config: RunConfig, journal: Journal, uploader: UploaderProcess, begin: Begin) -> int:
    folder, run = journal.folder, Run(journal, uploader)
    verbose = console.verbosity(config)
    bar = console.BarAndTrouble(config.epochs, journal)
    reports: dict[int, Report] = {1: bar, 2: console.EpochLines(config.epochs, journal)}
    on_steps = bar.step if verbose == 1 else None
    try:
        with run:
            config, data = ready(config)
            checkpoint = begin(config, run, data)
            with bar:
                test = fit_and_record(config, run, data, checkpoint, reports.get(verbose), on_steps)
    except Interrupted as interruption:
        _tell_interrupted(run, uploader, interruption)
        return interruption.exit_code
    except Exception as error:
        if not run.began:
            _leave_as_it_was(run, uploader)
            raise
        return _tell_failed(error, folder, uploader)
    delivered, exit_code = _wait(uploader)
    forget_checkpoints(folder)
    if journal.held:
        return _tell_full_disk(folder)
    if verbose:
        console.tell_result(config, folder, test)
    has_to_act = console.tell_delivery(folder, delivered)
    return exit_code or (NOT_ALL if has_to_act else DONE)


def _uploader_of(journal: Journal) -> UploaderProcess:
    """The process that delivers the run, if there is a run to train: else all is left as it was."""
    try:
        recovery.check_open(journal.folder)  # another process may have gone on with it, to its end, just now
        return UploaderProcess(journal.folder)
    except BaseException:
        journal.close()
        if not journal.count:
            remove(journal.folder)
        raise


def _leave_as_it_was(run: Run, uploader: UploaderProcess) -> None:
    """Leave nothing behind of a run that has not begun, and one that was not gone on with as it is."""
    if run.journal.count:
        uploader.wait(KILLED_PATIENCE_S)
    else:
        uploader.kill()
        remove(run.folder)


def _tell_failed(error: Exception, folder: RunFolder, uploader: UploaderProcess) -> int:
    """A full disk and a training that diverged are told in one line, anything else is raised again."""
    delivered, _ = _wait(uploader)
    if isinstance(error, DivergedError):
        print(f"pipeline: run {folder.path.name} {error}", file=sys.stderr)
    console.tell_delivery(folder, delivered)
    if isinstance(error, DivergedError):
        return NOT_ALL
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return _tell_full_disk(folder)
    raise error


def _wait(uploader: UploaderProcess) -> tuple[bool, int]:
    """Wait for the delivery; returns whether it is complete, and the exit code of a signal that ended the wait, or 0.

    The uploader then goes on by itself for as long as its grace lasts.
    """
    try:
        return uploader.wait(), 0
    except Interrupted as interruption:
        return False, interruption.exit_code


def _tell_interrupted(run: Run, uploader: UploaderProcess, interruption: Interrupted) -> None:
    """How to go on, before anything is waited for."""
    folder = run.folder
    if not run.journal.count:
        _leave_as_it_was(run, uploader)
        print(f"stopped by {interruption}; no run had begun", flush=True)
        return
    end = folder.ended()
    finished = end is not None and end["status"] == "FINISHED"
    how = "the run is finished" if finished else f"go on with: {_resume_command(folder)}"
    print(f"stopped by {interruption}; {how}", flush=True)
    console.tell_delivery(folder, uploader.wait(KILLED_PATIENCE_S))


def _tell_full_disk(folder: RunFolder) -> int:
    again = _resume_command(folder)
    print(f"pipeline: no space left on the disk of {folder.path}; make room, then go on with: {again}", file=sys.stderr)
    return NOT_ALL


def _resume_command(folder: RunFolder) -> str:
    return command("train", "--resume", folder.path.name, runs_dir=folder.path.parent)
