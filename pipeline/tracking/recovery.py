"""What a run's folder says of how to go on with it: who died, what was recorded, what a resumed run may change."""

import platform
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pipeline import divergence
from pipeline.config import ConfigError, RunConfig
from pipeline.terminal.shell import command
from pipeline.tracking.folders import (
    CONFIG,
    JOURNAL,
    LOST,
    STATE,
    Event,
    Journal,
    RunFolder,
    RunIsAliveError,
    all_folders,
    data_digest,
    never_begun,
    original_of,
    refusal_of_copy,
    remove,
    tell_once,
)

DIED = "the process died without a word (kill -9, out of memory, power loss)"
TOLD_LOSSES = 10
CHECKSUM = "# checksum"
FREE = {"verbose", "data_dir", "runs_dir", "on_divergence"}  # where things lie and what is printed changes no number


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


def close_as_dead(folder: RunFolder) -> bool:
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
            journal.append("end", status="FAILED", tags={"failure_reason": DIED})
        return True
    finally:
        journal.close()


def end_killed(journal: Journal, reason: str) -> None:
    """Close a record that a signal has cut short; one that never began, or has ended, stays as it is."""
    if journal.count and not journal.is_closed:
        journal.append_or_hold("end", status="KILLED", tags={"failure_reason": reason})


def mark_dead_runs(runs_dir: str | Path) -> list[RunFolder]:
    """Close the records of all runs that died; returns those that were closed now. What never began is removed."""
    for folder in never_begun(runs_dir):
        remove(folder)
    return [folder for folder in all_folders(runs_dir) if mark_if_dead(folder)]


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
        words.append(f"the last {delivered - len(events)} records are missing; MLflow has them")
    if not state_is_whole:
        words.append(f"{STATE} is damaged: what MLflow has already is found there again")
    return words


def _loss(event: Event, delivered: int) -> str:
    about = f" ({event['about']})" if event["about"] else ""
    fate = "MLflow has it" if event["n"] < delivered else "it is lost"
    return f"record {event['n'] + 1}{about} is damaged: {fate}"


def recorded_config(folder: RunFolder) -> RunConfig:
    """The knobs that the run was started with, and what its resumptions changed.

    Raises:
        ValueError: if the folder holds no run that has begun, or its first record is lost and its config as well.
    """
    start = folder.started()
    if start is None:
        return _config_beside(folder)
    if name := start["tags"].get("question"):
        raise ValueError(
            f"{folder.path.name} is the run of experiment {name!r}, which trains nothing itself; "
            f"go on with it: {command('experiment', 'FILE', runs_dir=folder.path.parent)}"
        )
    return RunConfig.from_mapping(recorded_knobs(folder.events()))


def recorded_knobs(events: Iterable[Event]) -> dict[str, Any]:
    """The knobs as they were recorded at the start, with what resumptions have changed since."""
    knobs: dict[str, Any] = {}
    for event in events:
        if event["kind"] in ("start", "resume"):
            knobs |= event["params"]
    return knobs


def config_text(config: RunConfig) -> str:
    """The config as its file has it: YAML, below a comment with the checksum of what follows."""
    import yaml

    text: str = yaml.safe_dump(config.as_dict(), sort_keys=False)
    return f"{_checksum_line(text)}\n{text}"


def _checksum_line(text: str) -> str:
    return f"{CHECKSUM} {zlib.crc32(text.encode()):08x}"


def _config_beside(folder: RunFolder) -> RunConfig:
    """The knobs as the folder's config file has them, for a run whose first record is lost."""
    import yaml

    if not folder.events():
        raise ValueError(f"{folder.path} holds no run that has begun; start a new one: {command('train')}")
    try:
        text = (folder.path / CONFIG).read_text()
        if text.startswith(CHECKSUM) and text.partition("\n")[0] != _checksum_line(text.partition("\n")[2]):
            raise ValueError("its checksum is not that of its content")
        return RunConfig.from_mapping(yaml.safe_load(text))
    except (OSError, ValueError, yaml.YAMLError, AttributeError, TypeError) as error:
        raise ValueError(
            f"the first record of {folder.path.name} is damaged and {CONFIG} cannot be read ({error}): nothing says "
            f"what was trained; start a new run: {command('train')}"
        ) from None


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


def resumed_config(folder: RunFolder, given: Mapping[str, Any]) -> RunConfig:
    """The config of the run as resumed with the given knobs: more epochs, or none but where things lie.

    Raises:
        ValueError: if the run is finished or still alive, or ConfigError listing the knobs that differ.
    """
    recorded = recorded_config(folder)
    check_open(folder)
    if folder.is_alive():
        raise RunIsAliveError(f"run {folder.path.name} is still running in another process; nothing to resume")
    if given.get("model_name") == "auto":  # settled as the run began
        given = {name: value for name, value in given.items() if name != "model_name"}
    wanted = RunConfig.from_mapping({**recorded.as_dict(), **given})
    before, after = recorded.as_dict(), wanted.as_dict()
    problems = [
        f"{name} was {before[name]}, not {after[name]}"
        for name in before
        if before[name] != after[name]
        and name not in FREE
        and not (name == "epochs" and wanted.epochs > recorded.epochs)
    ]
    if problems:
        reason = "a resumed run goes on with the knobs it began with (only epochs may grow); start a new run for others"
        raise ConfigError([*problems, reason])
    if (epoch := divergence.recorded(folder.events())) and wanted.on_divergence == "stop":
        raise ValueError(
            f"run {folder.path.name} diverged in epoch {epoch} and would again: the same knobs give the same numbers. "
            "Start a new run with others (a lower learning_rate), or go on all the same with --on_divergence continue"
        )
    return wanted


def check_same_data(folder: RunFolder, digest: str) -> None:
    """Make sure that the run goes on with the data it began with.

    Raises:
        ValueError: naming both digests.
    """
    recorded = data_digest(folder.events())
    if recorded not in (None, digest):
        raise ValueError(f"run {folder.path.name} began on data with digest {recorded}, here lies {digest}")
