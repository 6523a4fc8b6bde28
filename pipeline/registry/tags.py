"""The tags of a version, which say what it was made on: made here, and nowhere else."""

DATASET, DIGEST = "dataset", "data_digest"


def version_tags(test_accuracy: float | None, dataset: str, data_digest: str) -> dict[str, str]:
    """What a version tells of the run that made it; None and empty: not known."""
    return {"test_accuracy": repr(test_accuracy), DATASET: dataset, DIGEST: data_digest}
