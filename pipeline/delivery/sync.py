"""The subcommand sync: deliver to MLflow whatever runs have left undelivered."""

import os
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path

from filelock import FileLock, Timeout

from pipeline.delivery.blocked import BlockedError, LeftError
from pipeline.delivery.delivery import Delivery
from pipeline.delivery.opening import Known
from pipeline.delivery.resend import parent_of, send_elsewhere
from pipeline.mlflow_client.connection import connect
from pipeline.mlflow_client.errors import in_words, is_silence, told_tracking_uri
from pipeline.mlflow_client.tracking_uri import store_of
from pipeline.terminal.shell import DONE, NOT_ALL, UNREACHABLE, command, shown
from pipeline.tracking import recovery
from pipeline.tracking.folders import all_folders, copies, find_folder, original_of, refusal_of_copy
from pipeline.tracking.journal import RunFolder
from pipeline.tracking.lines import waiting
from pipeline.tracking.uploader import DELIVERING, DELIVERING_PATIENCE_S, note_store
from pipeline.values import counted

COMPLETE, RUNNING, REFUSED, LEFT, SILENT, OTHERS = "complete", "running", "refused", "left", "silent", "others"
IDLE_ROUNDS, PAUSE_S = 2, 1.0


def sync(
    runs: list[str], runs_dir: str, *, retry: bool = False, experiment_name: str = "", as_new: bool = False
) -> int:
    """Deliver what is left of the given runs, or of all; returns the exit code.

    0: MLflow has everything; 1: it refuses a part, or a run is still being written; 3: the server cannot be reached.

    Args:
        runs: run folders (copies from another machine, too), names or MLflow run ids; none: every run in runs_dir.
        runs_dir: where runs lie.
        retry: send again also what MLflow has refused for good.
        experiment_name: send the runs to this experiment, which they were not meant for.
        as_new: forget which runs MLflow has or had, and send all of them as new ones.

    Raises:
        ValueError: if a given run is not to be found, or cannot be sent elsewhere.
    """
    if (as_new or experiment_name) and not runs:
        raise ValueError("name the runs that --as-new or --experiment_name is for: sync RUN --as-new")
    folders = [find_folder(runs_dir, run) for run in runs] or all_folders(runs_dir)
    if not folders:
        print(f"no runs in {shown(Path(runs_dir))}: nothing to deliver")
        return DONE
    if as_new or experiment_name:
        folders = send_elsewhere(folders, experiment_name, as_new)
    copied = {each.path: first for each in folders if (first := original_of(each))} if runs else copies(folders)
    found = Counter(_sync_all(_parents_first(folders), copied, retry))
    if found[COMPLETE] + (0 if runs else found[OTHERS]) == len(folders):
        print(f"MLflow has everything of {counted(found[COMPLETE], 'run')}")
        return DONE
    if len(folders) > 1:
        print(f"MLflow has everything of {found[COMPLETE]} of {len(folders)} runs")
    return UNREACHABLE if found[SILENT] else NOT_ALL


def _parents_first(folders: list[RunFolder]) -> list[RunFolder]:
    """The same folders, those of experiments before those of their runs."""
    return sorted(folders, key=lambda folder: bool(parent_of(folder)))


def _sync_all(folders: list[RunFolder], copied: Mapping[Path, RunFolder], retry: bool) -> list[str]:
    """Deliver each run; once nobody answers at an address, the other runs there wait without being tried."""
    silent: set[str] = set()
    known: defaultdict[str, Known] = defaultdict(Known)
    stores = [store_of(folder.state()) for folder in folders]  # now: to connect is to tell the environment
    found = []
    for folder, uri in zip(folders, stores, strict=True):
        if original := copied.get(folder.path):
            print(refusal_of_copy(folder, original), file=sys.stderr)
            found.append(REFUSED)
            continue
        if uri in silent:
            print(f"{shown(folder.path)}: {counted(_waiting(folder), 'record', 'still wait')} as well", file=sys.stderr)
            found.append(SILENT)
            continue
        found.append(_sync_one(folder, uri, known[uri], retry))
        if found[-1] == SILENT:
            silent.add(uri)
    return found


def _waiting(folder: RunFolder) -> int:
    return waiting(folder.state(), len(folder.events()))


def _sync_one(folder: RunFolder, uri: str, known: Known, retry: bool) -> str:
    """Deliver one run and say how it went."""
    name = shown(folder.path)
    if not os.access(folder.path, os.W_OK):
        words = "passed over: this user may not write it; its owner can deliver it, or you a copy of your own"
        print(f"{name}: {words}", file=sys.stderr)
        return OTHERS
    for loss in recovery.losses(folder):
        print(f"{name}: {loss}", file=sys.stderr)
    if recovery.mark_if_dead(folder):
        print(f"{name}: had died without a word, now marked FAILED")
    if folder.is_alive():
        print(f"{name}: still running; its own process delivers it")
        return RUNNING
    try:
        with FileLock(folder.path / DELIVERING, timeout=DELIVERING_PATIENCE_S):
            return _deliver(folder, name, uri, known, retry)
    except Timeout:
        print(f"{name}: another process is delivering it")
        return RUNNING


def _deliver(folder: RunFolder, name: str, uri: str, known: Known, retry: bool) -> str:
    before = _waiting(folder)
    try:
        note_store(folder, uri)
        delivery = Delivery(folder, connect(uri), known)
        try:
            _patiently(delivery, name, retry)
        finally:
            if delivery.run_id and (done := before - _waiting(folder)) > 0:
                print(f"{name}: {counted(done, 'record')} delivered to run {delivery.run_id} in {told_tracking_uri()}")
    except BlockedError as error:
        print(
            f"{name}: {counted(_waiting(folder), 'record', 'wait')}: {in_words(error)}; {error.advice}", file=sys.stderr
        )
        return REFUSED
    except LeftError as error:
        print(f"{name}: MLflow does not take for now: {in_words(error)}", file=sys.stderr)
        return LEFT
    except Exception as error:  # every reason is worth the same line: it is tried again next time
        print(f"{name}: {counted(_waiting(folder), 'record', 'still wait')} ({in_words(error)})", file=sys.stderr)
        return SILENT
    return _told_refusals(delivery, name)


def _patiently(delivery: Delivery, name: str, retry: bool) -> None:
    """Deliver in as many rounds as get on and two that do not; slow answers get more time with each.

    Raises:
        BlockedError: at once; anything else that stands in the way of the last round.
    """
    idle, before = 0, -1
    while True:
        try:
            if _waiting(delivery.folder) <= 0 and not delivery.left:
                delivery.check()
            return delivery.deliver(retry)
        except BlockedError:
            raise
        except Exception as error:
            idle, before = (0 if delivery.done > before else idle + 1), delivery.done
            if idle >= IDLE_ROUNDS or (isinstance(error, LeftError) and delivery.artifact_store.is_silent):
                raise
            if is_silence(error):
                print(f"{name}: {in_words(error)} in time; waiting longer", file=sys.stderr)
            else:
                time.sleep(PAUSE_S)


def _told_refusals(delivery: Delivery, name: str) -> str:
    for left in delivery.refused:
        print(f"{name}: MLflow refused for good: {left.words}", file=sys.stderr)
    if not delivery.refused and not delivery.of_unknown_events:
        return COMPLETE
    folder = delivery.folder.path
    print(
        f"{name}: to send it again: {command('sync', folder.name, '--retry', runs_dir=folder.parent)}", file=sys.stderr
    )
    return REFUSED
