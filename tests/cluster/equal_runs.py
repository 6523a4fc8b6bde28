"""Are two experiments' runs the same, however they were trained? Folders compared file by file, values bit by bit."""

import json
import re

from pipeline.tracking.folders import all_folders, values_of

TIMES = ("epoch_seconds", "seconds_per_epoch")
NOT_OURS = {"lock", "sender.lock", "sender.log", "delivery.json", "workers.log"}


def record(folder):
    """What a run's folder says but for times and ids: (values, kinds of events once each, files, end)."""
    events = folder.events()
    values = {name: steps for name, steps in values_of(events).items() if name not in TIMES}
    files = {str(path.relative_to(folder.path)) for path in folder.path.rglob("*") if path.is_file()}
    end = folder.ended()
    return values, {event["kind"] for event in events}, files - NOT_OURS, end and end["status"]


def runs_of(runs_dir):
    """(variant, seed) -> record of the run; the experiment's own is left out."""
    found = {}
    for folder in all_folders(runs_dir):
        tags = folder.started()["tags"]
        if "question" not in tags:
            assert (tags["variant"], tags["seed"]) not in found
            found[tags["variant"], tags["seed"]] = record(folder)
    return found


def comparison(runs_dir):
    """The experiment's comparison.json, without ids and times."""
    (path,) = list(runs_dir.glob("*/artifacts/comparison/comparison.json"))
    return _without(json.loads(path.read_text()))


def _without(value):
    if isinstance(value, dict):
        return {
            name: _without(each)
            for name, each in value.items()
            if not re.search("second|run_id|runs|folder|time", name)
        }
    return [_without(each) for each in value] if isinstance(value, list) else value
