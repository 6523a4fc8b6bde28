"""The train verb: one recorded run, from the first import to the last line on the screen; or the rest of one."""

import contextlib
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
from pipeline.signals import Interrupted, interruptions, last_words, uninterrupted
from pipeline.terminal.shell import DONE, NOT_ALL, command
from pipeline.tracking import recovery
from pipeline.tracking.folders import Journal, RunFolder, all_folders, find_folder, new_folder, remove
from pipeline.tracking.uploader import UploaderProcess
from pipeline.training.recording import (
    Report,
    fit_and_record,
    open_journal,
    open_record,
    ready,
    reopen_record,
    train_as_helper,
)

if TYPE_CHECKING:
    from pipeline.data.datamodule import MNISTDataModule
    from pipeline.tracking.run import RunRecord

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
        try:
            sender = UploaderProcess(folder)
        except BaseException:
            remove(folder)
            raise
        return _train_recorded(
            config, journal, sender, lambda *ready: (open_record(ready[0], journal, sender, ready[1]), None)
        )


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
        try:
            recovery.check_open(folder)  # another process may have gone on with it, to its end, just now
            sender = UploaderProcess(folder)
        except BaseException:
            journal.close()
            raise
        return _train_recorded(
            config, journal, sender, lambda *ready: reopen_record(ready[0], journal, sender, ready[1])
        )


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
        again = command(*words, runs_dir=folder.path.parent)
        what = f"run {folder.path.name}" + (f" of experiment {experiment}" if experiment else "")
        print(
            f"{what} had died without a word and is now marked FAILED; go on with it: {again}",
            file=sys.stderr,
        )
        UploaderProcess(folder).close()


def _train_recorded(
    config: RunConfig,
    journal: Journal,
    sender: UploaderProcess,
    begin: Callable[[RunConfig, "MNISTDataModule"], tuple["RunRecord", Path | None]],
) -> int:
    """Train with a record that `begin` opens or reopens, tell how it went; returns the exit code."""
    verbose = console.verbosity(config)
    bar = console.BarAndTrouble(config.epochs, journal)
    reports: dict[int, Report] = {1: bar, 2: console.EpochLines(config.epochs, journal)}
    on_steps = bar.step if verbose == 1 else None
    with last_words(lambda reason: recovery.end_killed(journal, reason)):
        try:
            config, data = ready(config)
            record, checkpoint = begin(config, data)
            with bar:
                test = fit_and_record(config, record, data, checkpoint, reports.get(verbose), on_steps)
            record.end("FINISHED")
        except Interrupted as interruption:
            recovery.end_killed(journal, str(interruption))
            _tell_interrupted(journal, sender, interruption)
            return interruption.exit_code
        except DivergedError as error:
            record.end("FAILED", str(error))
            delivered, _ = _wait(sender)
            print(f"pipeline: run {journal.folder.path.name} {error}", file=sys.stderr)
            console.tell_delivery(journal.folder, delivered)
            return NOT_ALL
        except Exception as error:
            if _never_begun(journal, sender):
                raise
            return _fail(error, journal, sender)
        delivered, exit_code = _wait(sender)
        if journal.held:
            return _tell_full_disk(journal.folder)
        if verbose:
            console.tell_result(config, journal.folder, test)
        has_to_act = console.tell_delivery(journal.folder, delivered)
        return exit_code or (NOT_ALL if has_to_act else DONE)


def _never_begun(journal: Journal, sender: UploaderProcess) -> bool:
    """Leave nothing behind of a run that has not begun, and a run that was not gone on with as it is."""
    if not journal.count:
        sender.kill()
        remove(journal.folder)
    elif journal.is_closed:
        sender.wait(KILLED_PATIENCE_S)
    return journal.is_closed or not journal.count


def _fail(error: Exception, journal: Journal, sender: UploaderProcess) -> int:
    """Close the record as failed; a full disk is told in one line, anything else is raised again."""
    from pipeline.tracking.run import RunRecord

    with contextlib.suppress(Interrupted), uninterrupted():  # the run has failed all the same, and says so
        RunRecord(journal, sender).fail(error)
    delivered, _ = _wait(sender)
    console.tell_delivery(journal.folder, delivered)
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return _tell_full_disk(journal.folder)
    raise error


def _wait(sender: UploaderProcess) -> tuple[bool, int]:
    """Wait for the delivery; returns whether it is complete, and the exit code of a signal that ended the wait, or 0.

    The sender then goes on by itself for as long as its grace lasts.
    """
    try:
        return sender.wait(), 0
    except Interrupted as interruption:
        return False, interruption.exit_code


def _tell_interrupted(journal: Journal, sender: UploaderProcess, interruption: Interrupted) -> None:
    """How to go on, before anything is waited for."""
    folder = journal.folder
    if not journal.count:
        _never_begun(journal, sender)
        print(f"stopped by {interruption}; no run had begun", flush=True)
        return
    end = folder.ended()
    finished = end is not None and end["status"] == "FINISHED"
    how = "the run is finished" if finished else f"go on with: {_resume_command(folder)}"
    print(f"stopped by {interruption}; {how}", flush=True)
    console.tell_delivery(folder, sender.wait(KILLED_PATIENCE_S))


def _tell_full_disk(folder: RunFolder) -> int:
    again = _resume_command(folder)
    print(f"pipeline: no space left on the disk of {folder.path}; make room, then go on with: {again}", file=sys.stderr)
    return NOT_ALL


def _resume_command(folder: RunFolder) -> str:
    return command("train", "--resume", folder.path.name, runs_dir=folder.path.parent)
