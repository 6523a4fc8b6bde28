"""Each group's mean at every epoch with its interval, for the pictures and for MLflow's own charts."""

import re
from collections import defaultdict

from pipeline.comparing.comparison import Comparison
from pipeline.comparing.groups import Group
from pipeline.comparing.quantities import bounds_of
from pipeline.comparing.statistics import Estimate, estimate

SHOWN = ("val_loss", "val_accuracy")
NOT_IN_A_NAME = r"[^\w. :-]"  # of a metric, as MLflow has them
MOST_GROUPS = 50  # as metrics: six values each in every epoch


def means_per_epoch(group: Group, metric: str) -> dict[int, Estimate]:
    """Epoch -> mean over the group's runs that have it, with its pointwise 95 % interval."""
    histories = [run.curves[metric] for run in group.runs if metric in run.curves]
    epochs = sorted({epoch for history in histories for epoch in history})
    return {
        epoch: estimate([history[epoch] for history in histories if epoch in history], bounds_of(metric))
        for epoch in epochs
    }


def as_metrics(found: Comparison) -> dict[int, dict[str, float]]:
    """Epoch -> `val_accuracy/LABEL mean of 5`, `low of 5`, `high of 5` and the same of the loss.

    How many runs they are of stands in the name: a value that MLflow has is never taken back.
    """
    values: dict[int, dict[str, float]] = defaultdict(dict)
    for group in found.groups[:MOST_GROUPS]:
        for metric in dict.fromkeys((*SHOWN, found.metric)):
            for epoch, each in means_per_epoch(group, metric).items():
                name = f"{metric}/{re.sub(NOT_IN_A_NAME, '_', group.label)}"
                bounds = {"low": each.low, "high": each.high} if each.n > 1 else {}
                for what, value in {"mean": each.mean, **bounds}.items():
                    values[epoch][f"{name} {what} of {len(group.runs)}"] = value
    return dict(values)
