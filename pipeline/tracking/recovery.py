"""What a run's folder says of how it ended: who died, what is damaged, what may be gone on with."""

import os
import platform
from pathlib import Path

from pipeline.terminal.shell import command
from pipeline.tracking.folders import (
    all_folders,
    copies,
    data_digest,
    never_begun,
    original_of,
    refusal_of_copy,
    remove,
    tell_once,
)
from pipeline.tracking.journal import JOURNAL, STATE, Journal, RunFolder, RunIsAliveError
from pipeline.tracking.lines import LOST, Event, waiting
from pipeline.tracking.uploader import DELIVERING, deliver_in_background
from pipeline.values import counted

DIED = "the process died without a word (kill -9, out of memory, power loss)"
TOLD_LOSSES = 10
OURS = "pipeline"  # what a training of this pipeline gives MLflow as its source


def mark_if_dead(folder: RunFolder) -> bool:
    """Close the record of a run of this machine whose process died without closing it; returns whether it did."""
    start = folder.started()
    if start is None or folder.is_alive() or folder.ended() is not None or _lives_elsewhere(folder, start):
        return False
    if folder.end_is_unknown():
        tell_once(f"{folder.path.name}: its last records are lost, so that nobody can say how it ended; left as it is")
        return False
    return close_as_dead(folder)


def _lives_elsewhere(folder: RunFolder, start: Event) -> bool:
    """Whether the run's process may live where it cannot be seen from here, or this is a copy of a run that lives."""
    if start["tags"].get("host") not in (None, platform.node()):
        return True
    home = RunFolder(start.get("folder", folder.path))
    return (home.path != folder.path and home.is_alive()) or original_of(folder) is not None


def close_as_dead(folder: RunFolder, status: str = "FAILED", reason: str = DIED) -> bool:
    """Write the end that the process could not; returns False if it lives after all, or is another user's."""
    try:
        journal = Journal(folder)
    except RunIsAliveError:
        return False
    except OSError as error:
        tell_once(f"{folder.path.name}: died without a word, but cannot be marked so here ({error.strerror})")
        return False
    try:
        if not journal.is_closed:
            journal.append("end", status=status, tags={"failure_reason": reason})
        return True
    finally:
        journal.close()


def deliver_what_others_left(runs_dir: str | Path, cwd: Path | None = None) -> None:
    """Let the runs that died, and those that MLflow does not have whole, be delivered in the background.

    Args:
        runs_dir: where the runs lie.
        cwd: where `mlflow.db` lies, if no address is given; None: in the working directory.
    """
    deliver_in_background(left_by_others(runs_dir), cwd)


def left_by_others(runs_dir: str | Path) -> list[RunFolder]:
    """The runs to be delivered: those that died, now marked and told how they go on, and those that wait.

    What never began is removed.
    """
    for folder in never_begun(runs_dir):
        remove(folder)
    left, folders = [], all_folders(runs_dir)
    for folder in folders:
        if died := mark_if_dead(folder):
            what, again = _how_to_go_on(folder)
            tell_once(f"{what} had died without a word and is now marked FAILED; go on with it: {again}")
        if died or _waits(folder):
            left.append(folder)
    copied = copies(folders) if left else {}
    return [folder for folder in left if folder.path not in copied]


def _how_to_go_on(folder: RunFolder) -> tuple[str, str]:
    name, place, tags = folder.path.name, folder.path.parent, (folder.started() or {}).get("tags", {})
    if script_of(folder):
        return f"run {name}", f"RunLogger(..., resume={name!r})"
    if experiment := tags.get("experiment"):
        return f"run {name} of experiment {experiment}", command("experiment", "FILE", runs_dir=place)
    return f"run {name}", command("train", "--resume", name, runs_dir=place)


def script_of(folder: RunFolder) -> str:
    """The script whose own training the run is; nothing: it is one of this pipeline's."""
    source = (folder.started() or {}).get("tags", {}).get("mlflow.source.name", OURS)
    return "" if source == OURS else str(source)


def _waits(folder: RunFolder) -> bool:
    """Whether the run is over and MLflow does not have all of it; what needs a person first does not wait."""
    state = folder.state()
    trouble = state.get("trouble") or {}
    if trouble.get("advice"):
        return False
    if not trouble and (waiting(state, folder.count()) <= 0 or folder.ended() is None):
        return False
    return os.access(folder.path, os.W_OK) and not folder.is_alive() and not folder.is_locked(DELIVERING)


def losses(folder: RunFolder) -> list[str]:
    """What is damaged in a run's folder, a sentence each: which record, what can be known of it, who still has it."""
    events = folder.events()
    state, state_is_whole = folder.checked_state()
    delivered = state.get("delivered", 0)
    words = [_loss(event, delivered) for event in events if event["kind"] == LOST]
    if len(words) > TOLD_LOSSES:
        words = [*words[:TOLD_LOSSES], f"and {len(words) - TOLD_LOSSES} more"]
    if not events:
        words.append(f"no record can be read in {JOURNAL}; what MLflow has of the run stays as it is")
    elif delivered > len(events):
        words.append(f"the last {counted(delivered - len(events), 'record', 'are')} missing; MLflow has them")
    if not state_is_whole:
        words.append(f"{STATE} is damaged: what MLflow has already is found there again")
    return words


def _loss(event: Event, delivered: int) -> str:
    about = f" ({event['about']})" if event["about"] else ""
    fate = "MLflow has it" if event["n"] < delivered else "it is lost"
    return f"record {event['n'] + 1}{about} is damaged: {fate}"


def check_open(folder: RunFolder) -> None:
    """Make sure that the run may be gone on with.

    Raises:
        ValueError: if it is finished, or the copy of a run that lies beside it.
    """
    end = folder.ended()
    if end is not None and end["status"] == "FINISHED":
        raise ValueError(
            f"run {folder.path.name} is finished; there is nothing to resume. "
            "For more epochs start a new run, with the same seed: it repeats these epochs bit for bit"
        )
    if original := original_of(folder):
        raise ValueError(refusal_of_copy(folder, original))


def check_same_data(folder: RunFolder, digest: str) -> None:
    """Make sure that the run goes on with the data it began with.

    Raises:
        ValueError: naming both digests.
    """
    recorded = data_digest(folder.events())
    if recorded not in (None, digest):
        raise ValueError(f"run {folder.path.name} began on data with digest {recorded}, here lies {digest}")
