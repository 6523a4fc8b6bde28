"""The tags of a version, which say what it was made on: made here, and nowhere else."""

import json
from collections.abc import Mapping
from typing import Any

DATASET, DIGEST, DATA = "dataset", "data_digest", "data"


def version_tags(
    test_accuracy: float | None, dataset: str, data_digest: str, data: Mapping[str, Any] | None = None
) -> dict[str, str]:
    """What a version tells of the run that made it; None and empty: not known.

    Args:
        test_accuracy: of the run.
        dataset: what the data are called.
        data_digest: of the data.
        data: the knobs by which they are read again.
    """
    tags = {"test_accuracy": repr(test_accuracy), DATASET: dataset, DIGEST: data_digest}
    return tags | ({DATA: json.dumps(data)} if data else {})


def data_knobs(tags: Mapping[str, str]) -> dict[str, Any]:
    """The knobs by which the version's data are read; versions of before have their name only."""
    knobs: dict[str, Any] = json.loads(tags.get(DATA, "{}"))
    return knobs or {"dataset": tags.get(DATASET, "mnist")}
