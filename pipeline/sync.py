"""The sync verb: deliver to MLflow whatever runs have left undelivered."""

import os
import sys

from filelock import FileLock, Timeout

from pipeline import recovery
from pipeline.connection import connect, in_words
from pipeline.delivery import Delivery
from pipeline.record import RunFolder, all_folders, copies, find_folder, original_of, refusal_of_copy
from pipeline.sender import DELIVERING
from pipeline.shell import shown


def sync(runs: list[str], runs_dir: str) -> int:
    """Deliver what is left of the given runs, or of all; returns 0 if MLflow has everything then, else 1.

    Args:
        runs: run folders (copies from another machine, too), names or MLflow run ids; none: every run in runs_dir.
        runs_dir: where runs lie.

    Raises:
        ValueError: if a given run is not to be found.
    """
    folders = [find_folder(runs_dir, run) for run in runs] or all_folders(runs_dir)
    if not folders:
        print(f"no runs in {runs_dir}: nothing to deliver")
    copied = {each.path: first for each in folders if (first := original_of(each))} if runs else copies(folders)
    complete = [_sync_one(folder, copied.get(folder.path)) for folder in folders]
    if folders and all(complete):
        print(f"MLflow has everything of {len(folders)} run{'s' * (len(folders) != 1)}")
    return 0 if all(complete) else 1


def _sync_one(folder: RunFolder, original: RunFolder | None) -> bool:
    """Deliver one run and say how it went; a copy is refused, and another user's run left to them."""
    name = shown(folder.path)
    if original:
        print(refusal_of_copy(folder, original), file=sys.stderr)
        return False
    if not os.access(folder.path, os.W_OK):
        print(f"{name}: passed over: only the user whose run it is can deliver it", file=sys.stderr)
        return True
    for loss in recovery.losses(folder):
        print(f"{name}: {loss}", file=sys.stderr)
    if recovery.mark_if_dead(folder):
        print(f"{name}: had died without a word, now marked FAILED")
    if folder.is_alive():
        print(f"{name}: still running; its own process delivers it")
        return True
    try:
        with FileLock(folder.path / DELIVERING, timeout=0):
            return _deliver(folder, name)
    except Timeout:
        print(f"{name}: another process is delivering it")
        return True


def _deliver(folder: RunFolder, name: str) -> bool:
    waiting = len(folder.events()) - folder.state().get("delivered", 0)
    try:
        # Where the environment names no server, the run's own: the folder may have been filled from elsewhere.
        uri = None if "MLFLOW_TRACKING_URI" in os.environ else folder.state().get("tracking_uri")
        delivery = Delivery(folder, connect(uri))
        delivery.deliver()
    except Exception as error:  # every reason is worth the same line: it is tried again next time
        print(f"{name}: {waiting} records still wait ({in_words(error)})", file=sys.stderr)
        return False
    if waiting > 0:
        print(f"{name}: {waiting} records delivered to run {delivery.run_id} in {delivery.tracking_uri}")
    for refusal in delivery.refused:
        print(f"{name}: MLflow refused for good: {refusal}", file=sys.stderr)
    return True
