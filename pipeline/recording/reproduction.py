"""The subcommand reproduce: train again from what a run recorded, and say whether every number is the same."""

import tempfile
from collections.abc import Mapping
from pathlib import Path

from pipeline.config import RunConfig
from pipeline.data.datamodule import DataModule
from pipeline.data.dataset import Dataset
from pipeline.divergence import DivergedError
from pipeline.recording.resuming import recorded_config
from pipeline.terminal.shell import DONE, NOT_ALL
from pipeline.tracking.folders import data_digest, find_folder, values_of
from pipeline.tracking.journal import RunFolder
from pipeline.tracking.provenance import git_tags, machine_tags
from pipeline.training import building, fit
from pipeline.values import counted

TIMES = ("epoch_seconds", "seconds_per_epoch")  # all else that a training records it should come to again
Values = dict[tuple[int, str], float]


def reproduce(run: str, runs_dir: str, data_dir: str | None = None) -> int:
    """Train again and compare every value of every epoch, but for times; returns 0 if all are identical, else 1.

    Args:
        run: `last`, a run folder or an MLflow run id.
        runs_dir: where runs lie.
        data_dir: where the data lies now, if not where it lay then.

    Raises:
        ValueError: if there is no such run or it recorded no epoch.
    """
    folder = find_folder(runs_dir, run)
    config = recorded_config(folder)
    if data_dir:
        config = config.replace(data_dir=data_dir)
    recorded = _recorded_values(folder)
    if not recorded:
        raise ValueError(f"run {folder.path.name} recorded no epoch; there is nothing to compare with")
    data = building.make_data(config)
    data.setup()
    assert data.source is not None
    return _tell(folder, recorded, _trained_again(config, data), _differences(folder, data.source))


def _trained_again(config: RunConfig, data: DataModule) -> Values:
    test: Mapping[str, float] = {}
    with tempfile.TemporaryDirectory() as scratch:
        try:
            result = fit.fit(config, data=data, folder=Path(scratch), default_root_dir=scratch)
            history, test = result.history, result.test
        except DivergedError as error:
            history = {epoch: dict(metrics) for epoch, metrics in error.history.items()}
    again = {(epoch, name): value for epoch, metrics in history.items() for name, value in metrics.items()}
    return again | {(max(history), name): value for name, value in test.items()}


def _recorded_values(folder: RunFolder) -> Values:
    values = values_of(folder.events())
    return {(step, name): value for name in values.keys() - TIMES for step, value in values[name].items()}


def _tell(folder: RunFolder, recorded: Values, again: Values, differences: list[str]) -> int:
    different = sorted(key for key, value in recorded.items() if repr(again.get(key)) != repr(value))
    name, epochs = folder.path.name, max(step for step, _ in recorded)
    if not different:
        print(f"identical: all {len(recorded)} values of {counted(epochs, 'epoch')} of run {name}")
    else:
        step, metric = different[0]
        print(f"different: {len(different)} of {len(recorded)} values of run {name}")
        print(f"first at epoch {step}: {metric} was {recorded[step, metric]!r}, now {again.get((step, metric))!r}")
    for line in differences:
        print(f"  {line}")
    if different and not differences:
        print("  code, packages, data and device are the same: look for randomness that the seed does not decide")
    return NOT_ALL if different else DONE


def _differences(folder: RunFolder, source: Dataset) -> list[str]:
    """What is not as it was: commit, packages, data, device."""
    start = folder.started()
    assert start is not None
    here = {**git_tags(), **machine_tags()}
    then = {name: text for name, text in start["tags"].items() if name in here and name != "host"}
    now = {name: here[name] for name in then}
    if recorded := data_digest(folder.events()):
        then["data digest"], now["data digest"] = recorded, source.digest
    return [f"{name} was {then[name]}, now {now[name]}" for name in now if then[name] != now[name]]
