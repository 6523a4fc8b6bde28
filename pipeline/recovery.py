"""What a run's folder says of how to go on with it: who died, what was recorded, what a resumed run may change."""

import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline import divergence
from pipeline.config import ConfigError, RunConfig
from pipeline.record import Journal, RunFolder, RunIsAliveError, all_folders, data_digest, never_begun, remove
from pipeline.shell import command

DIED = "the process died without a word (kill -9, out of memory, power loss)"
FREE = {"verbose", "data_dir", "runs_dir", "on_divergence"}  # where things lie and what is printed changes no number


def mark_if_dead(folder: RunFolder) -> bool:
    """Close the record of a run of this machine whose process died without closing it; returns whether it did."""
    start = folder.started()
    if start is None or folder.ended() is not None or folder.is_alive():
        return False
    if start["tags"].get("host") not in (None, platform.node()):
        return False  # its process may live on the other machine, where its lock cannot be seen
    return close_as_dead(folder)


def close_as_dead(folder: RunFolder) -> bool:
    """Write the end that the process could not; returns False if it lives after all."""
    try:
        journal = Journal(folder)
    except RunIsAliveError:
        return False
    journal.append("end", status="FAILED", tags={"failure_reason": DIED})
    journal.close()
    return True


def mark_dead_runs(runs_dir: str | Path) -> list[RunFolder]:
    """Close the records of all runs that died; returns those that were closed now. What never began is removed."""
    for folder in never_begun(runs_dir):
        remove(folder)
    return [folder for folder in all_folders(runs_dir) if mark_if_dead(folder)]


def recorded_config(folder: RunFolder) -> RunConfig:
    """The knobs that the run was started with, and what its resumptions changed.

    Raises:
        ValueError: if the folder holds no run that has begun.
    """
    start = folder.started()
    if start is None:
        raise ValueError(f"{folder.path} holds no run that has begun; start a new one with `{command('train')}`")
    if name := start["tags"].get("question"):
        raise ValueError(
            f"{folder.path.name} is the run of experiment {name!r}, which trains nothing itself; "
            f"go on with it: {command('experiment', 'FILE', runs_dir=folder.path.parent)}"
        )
    values = dict(start["params"])
    for event in folder.events():
        if event["kind"] == "resume":
            values |= event["params"]
    return RunConfig.from_mapping(values)


def resumed_config(folder: RunFolder, given: Mapping[str, Any]) -> RunConfig:
    """The config of the run as resumed with the given knobs: more epochs, or none but where things lie.

    Raises:
        ValueError: if the run is finished or still alive, or ConfigError listing the knobs that differ.
    """
    recorded = recorded_config(folder)
    end = folder.ended()
    if end is not None and end["status"] == "FINISHED":
        raise ValueError(
            f"run {folder.path.name} is finished; there is nothing to resume. "
            "For more epochs start a new run, with the same seed: it repeats these epochs bit for bit"
        )
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
