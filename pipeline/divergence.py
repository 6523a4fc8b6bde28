"""A training whose loss is no longer a number: how that is known, said and recorded. Standard library only."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

TAG = "diverged_in_epoch"  # of a run; its value is the first such epoch, from 1
LOSSES = ("train_loss", "val_loss")
LARGEST = 1.7e308  # MLflow's SQL stores keep infinity as the largest float64


class DivergedError(RuntimeError):
    """The training diverged and was to stop then.

    Attributes:
        epoch: the first epoch whose losses or weights are not finite.
        history: epoch (from 1) -> metrics, of all epochs up to it.
    """

    def __init__(self, epoch: int, history: Mapping[int, Mapping[str, float]]) -> None:
        self.epoch, self.history = epoch, history
        super().__init__(
            f"{words(epoch, history[epoch])}; try a lower learning_rate, or look at the data and the precision "
            "(on_divergence continue trains on all the same)"
        )


def is_finite(value: float) -> bool:
    """Whether the value is a number, also as MLflow gives it back."""
    return math.isfinite(value) and abs(value) < LARGEST


def words(epoch: int, metrics: Mapping[str, float]) -> str:
    """`diverged in epoch 3: train_loss is nan`."""
    wrong = [f"{name} is {metrics[name]}" for name in LOSSES if not is_finite(metrics[name])]
    return f"diverged in epoch {epoch}: {', '.join(wrong) or 'weights are not finite'}"


def first_epoch(history: Mapping[int, Mapping[str, float]]) -> int | None:
    """The first epoch with a loss that is not finite."""
    return next(
        (epoch for epoch in sorted(history) if not all(is_finite(history[epoch][name]) for name in LOSSES)), None
    )


def recorded(events: Iterable[Mapping[str, Any]]) -> str | None:
    """The epoch in which the run of these events diverged, as recorded."""
    return next((event["tags"][TAG] for event in events if event["kind"] == "tags" and TAG in event["tags"]), None)
