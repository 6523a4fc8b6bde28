"""The knobs that a run began with, and which of them may change when it is gone on with."""

import zlib
from collections.abc import Iterable, Mapping
from typing import Any

from pipeline import divergence
from pipeline.config import OWNERS, ConfigError, RunConfig
from pipeline.config.roles import role_of
from pipeline.terminal.shell import command
from pipeline.tracking.journal import CONFIG, RunFolder, RunIsAliveError
from pipeline.tracking.lines import Event
from pipeline.tracking.recovery import check_open, script_of

QUESTION = "question"  # the tag that tells an experiment's own run from its runs
CHECKSUM = "# checksum"


def recorded_config(folder: RunFolder) -> RunConfig:
    """The knobs that the run was started with, and what its resumptions changed.

    Raises:
        ValueError: if the folder holds no run that has begun, or its first record is lost and its config as well, or it
            is not a training of this pipeline.
    """
    start = folder.started()
    if start is None:
        return _config_beside(folder)
    if name := start["tags"].get(QUESTION):
        raise ValueError(
            f"{folder.path.name} is the run of experiment {name!r}, which trains nothing itself; "
            f"go on with it: {command('experiment', 'FILE', runs_dir=folder.path.parent)}"
        )
    if script := script_of(folder):
        raise ValueError(
            f"{folder.path.name} is a run of {script}, which this pipeline cannot train; its script goes on with it: "
            f"RunLogger(..., resume={folder.path.name!r})"
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


def _forbidden_changes(recorded: RunConfig, wanted: RunConfig) -> list[str]:
    """A line for each knob that a run which is gone on with may not be given so."""
    problems = []
    before, after = recorded.as_dict(), wanted.as_dict()
    for name, field in type(recorded).model_fields.items():
        may = role_of(field).resumes
        if before[name] != after[name] and may != "any" and not (may == "larger" and after[name] > before[name]):
            problems.append(f"{name} was {before[name]}, not {after[name]}")
    if recorded.schedule != "constant" and recorded.epochs != wanted.epochs:
        problems.append(f"epochs was {recorded.epochs}, over which schedule {recorded.schedule} is laid out")
    return problems


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
    before = recorded.as_dict()
    problems = [
        f"{name} was {before[name]}, not {given[name]}"
        for name in OWNERS
        if given.get(name, before[name]) != before[name]
    ]
    wanted = recorded if problems else RunConfig.from_mapping({**before, **given})
    problems += _forbidden_changes(recorded, wanted)
    if problems:
        reason = "a resumed run goes on with the knobs it began with (only epochs may grow); start a new run for others"
        raise ConfigError([*problems, reason])
    if (epoch := divergence.recorded(folder.events())) and wanted.on_divergence == "stop":
        raise ValueError(
            f"run {folder.path.name} diverged in epoch {epoch} and would again: the same knobs give the same numbers. "
            "Start a new run with others (a lower learning_rate), or go on all the same with --on_divergence continue"
        )
    return wanted
