"""What is known of a quantity by its name."""

import math

import pytest

from pipeline.comparing.quantities import bounds_of, higher_is_better, smallest_of


@pytest.mark.parametrize(
    ("metric", "more_is_better", "bounds", "smallest"),
    [
        ("val_accuracy", True, (0, 1), 0.001),
        ("test_loss", False, (0, math.inf), 0.005),
        ("seconds_per_epoch", False, (0, math.inf), 0.05),
        ("error_rate", False, (-math.inf, math.inf), 0.001),
        ("f1", True, (-math.inf, math.inf), 0.001),
        ("val_ece", None, (-math.inf, math.inf), 0.001),
    ],
)
def test_a_metrics_name_tells_which_way_is_better_where_it_ends_and_what_matters(
    metric, more_is_better, bounds, smallest
):
    assert (higher_is_better(metric), bounds_of(metric), smallest_of(metric)) == (more_is_better, bounds, smallest)
