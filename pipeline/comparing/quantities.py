"""What is known of a quantity by its name: which way is better, where its values end, what difference matters."""

import math

from pipeline.comparing.statistics import ANY, Bounds

METRIC = "val_accuracy"  # what decides where nothing else is asked
DIRECTIONS = {"higher": True, "lower": False}  # of what is better
LOWER, HIGHER = ("loss", "seconds", "error"), ("accuracy", "f1", "precision", "recall")
# The smallest difference that a comparison should be able to see, and below which two are called the same.
SMALLEST = {"accuracy": 0.001, "loss": 0.005, "seconds": 0.05}


def higher_is_better(metric: str) -> bool | None:
    """Whether more of the metric is what one wants; None where its name does not tell."""
    if any(word in metric for word in LOWER):
        return False
    return True if any(word in metric for word in HIGHER) else None


def bounds_of(metric: str) -> Bounds:
    """Where the metric's values end: an accuracy at 0 and 1, a loss or a time at 0."""
    if "accuracy" in metric:
        return 0.0, 1.0
    return (0.0, math.inf) if "loss" in metric or "seconds" in metric else ANY


def smallest_of(metric: str) -> float:
    """The smallest difference of interest."""
    return next((value for word, value in SMALLEST.items() if word in metric), 0.001)
