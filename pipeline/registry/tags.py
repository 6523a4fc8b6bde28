"""The tags of a version, which say what it was made on: made here, and nowhere else."""

import json
from collections.abc import Mapping
from typing import Any

DATASET, DIGEST, DATA = "dataset", "data_digest", "data"
HELD_OUT, VALIDATION_SEED, SELECTED_BY = "validation_size", "validation_seed", "selected_by"
SELECTING = ("early_stopping", "keep_best")  # knobs by which the held-out examples choose a run's epoch


def version_tags(
    test_accuracy: float | None,
    dataset: str,
    data_digest: str,
    data: Mapping[str, Any] | None = None,
    knobs: Mapping[str, Any] | None = None,
    parent: str = "",
) -> dict[str, str]:
    """What a version tells of the run that made it; None and empty: not known.

    Args:
        test_accuracy: of the run.
        dataset: what the data are called.
        data_digest: of the data.
        data: the knobs by which they are read again.
        knobs: all of the run's, or its params.
        parent: the run that it belongs to: an experiment compares its runs on the held-out examples.
    """
    tags = {"test_accuracy": repr(test_accuracy), DATASET: dataset, DIGEST: data_digest}
    return tags | ({DATA: json.dumps(data)} if data else {}) | _selection_tags(knobs or {}, parent)


def _selection_tags(knobs: Mapping[str, Any], parent: str) -> dict[str, str]:
    """How many examples the run held out, and what selected by them: runs of before have no such tags."""
    if HELD_OUT not in knobs:
        return {}
    by = [name for name in SELECTING if str(knobs.get(name, 0)) not in ("0", "False")]
    which = {VALIDATION_SEED: str(knobs.get(VALIDATION_SEED, 0))} if str(knobs.get(VALIDATION_SEED, 0)) != "0" else {}
    return {HELD_OUT: str(knobs[HELD_OUT]), **which, SELECTED_BY: ", ".join([*by, "experiment"] if parent else by)}


def data_knobs(tags: Mapping[str, str]) -> dict[str, Any]:
    """The knobs by which the version's data are read; versions of before have their name only."""
    knobs: dict[str, Any] = json.loads(tags.get(DATA, "{}"))
    return knobs or {"dataset": tags.get(DATASET, "mnist")}
