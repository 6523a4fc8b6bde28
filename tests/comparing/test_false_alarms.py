"""How often a comparison speaks of a difference where there is none."""

import gc

import numpy as np
import pytest
from tests.analysis.test_comparison import runs_of

from pipeline.comparing.comparison import compare


@pytest.mark.slow
@pytest.mark.parametrize("paired", [True, False])
def test_under_a_true_null_at_most_one_experiment_in_twenty_speaks_of_a_difference(paired):
    """2,000 experiments of a baseline and three variants that are the same: accuracies of 10,000 images, 5 seeds."""
    random = np.random.default_rng(1)
    wrong = 0
    gc.freeze()  # statsmodels collects garbage at each correction: nine tenths of the time, with all that is imported
    for _ in range(2000):
        values = random.binomial(10_000, 0.98, size=(4, 5)) / 10_000
        runs = [
            each
            for k in range(4)
            for each in runs_of(f"v{k}", values[k], first_seed=1 if paired else 10 * k, dropout=f"0.{k}")
        ]
        # (with 1.0 as the smallest difference of interest the sample size, which decides neither, is found at once)
        verdicts = {each.verdict for each in compare(runs, baseline="v0", smallest=1.0).contrasts}
        wrong += bool(verdicts & {"better", "worse"})
    assert 0 < wrong / 2000 <= 0.05
