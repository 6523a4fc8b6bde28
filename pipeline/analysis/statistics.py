"""The statistics of a comparison, all SciPy's and statsmodels': intervals, tests, sample sizes.

Student's t interval of the mean; the paired t test over common seeds, Welch's t test where there are none; sample sizes
from the noncentral t distribution at 80 % power.

Intervals end where the quantity does (`Bounds`): a mean of accuracies lies in [0, 1], a difference of two in [-1, 1]. A
t interval cut there keeps its coverage, since the truth lies there too, and its agreement with the test, since 0 does
(bounded means: Mandelkern, 2002, Statistical Science 17, 149). Simulated, 20,000 experiments each of 2, 3, 5, 10 seeds:
- accuracies from Beta(200, 4), mean 98 %: cut 94.5, 93.7, 93.3, 93.6 %; t on the logit scale 95.1, 95.0, 94.3, 91.5 %;
- from the very skewed Beta(40, 1): cut 91.0, 88.9, 88.8, 90.5 %; logit 95.0, 94.8, 92.8, 82.2 %.
The logit interval buys its coverage of two seeds with widths of 30 to 95 points, loses it as seeds are added (it bounds
another mean than the table shows), and has none where a seed reaches 100 %; so it is the cut one.
"""

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestIndPower, TTestPower

CONFIDENCE, POWER = 0.95, 0.8
MIN_RUNS, MAX_RUNS = 3, 1000
Bounds = tuple[float, float]
ANY = (-math.inf, math.inf)
PLAIN_EFFECT = 20.0  # in standard deviations: more takes no fewer runs, and the noncentral t gets slow


@dataclass(frozen=True)
class Estimate:
    """A mean with its spread; low and high bound the 95 % confidence interval (nan for one value)."""

    n: int
    mean: float
    sd: float
    low: float
    high: float


def estimate(values: Sequence[float], bounds: Bounds = ANY) -> Estimate:
    """Mean, standard deviation (n - 1) and the t interval of the mean, cut where the quantity ends."""
    n, mean = len(values), float(np.mean(values))
    if n < 2:
        return Estimate(n, mean, math.nan, math.nan, math.nan)
    sd = float(np.std(values, ddof=1))
    if sd == 0:
        return Estimate(n, mean, sd, mean, mean)
    low, high = stats.t.interval(CONFIDENCE, n - 1, loc=mean, scale=stats.sem(values))
    if _within(values, bounds):
        low, high = max(low, bounds[0]), min(high, bounds[1])
    return Estimate(n, mean, sd, float(low), float(high))


def _within(values: Sequence[float], bounds: Bounds) -> bool:
    """Whether the quantity ends at the bounds: a foreign run's accuracy may be given in percent."""
    return bounds[0] <= min(values) and max(values) <= bounds[1]


@dataclass(frozen=True)
class Test:
    """Two samples compared.

    Attributes:
        n: pairs, or runs of the smaller sample.
        sd: of the differences, or pooled.
        p: two-sided, of this test alone.
    """

    name: str
    paired: bool
    n: int
    difference: float
    sd: float
    low: float = math.nan
    high: float = math.nan
    p: float = math.nan

    def needed(self, smallest: float, alpha: float) -> int | None:
        """Runs per group at which a difference of `smallest` would be shown with 80 % power."""
        if math.isnan(self.sd):
            return None
        if self.sd == 0:
            return MIN_RUNS
        effect = min(abs(smallest) / self.sd, PLAIN_EFFECT)
        power = TTestPower().power if self.paired else TTestIndPower().power

        def enough(n: int) -> bool:
            # one side only: SciPy's noncentral t has nan for the other, where it is next to nothing
            return bool(power(effect, n, alpha / 2, alternative="larger") >= POWER)

        normal = (stats.norm.ppf(1 - alpha / 2) + stats.norm.ppf(POWER)) / effect
        n = int(min(MAX_RUNS, max(MIN_RUNS, normal**2 * (1 if self.paired else 2))))
        while n < MAX_RUNS and not enough(n):
            n += 1
        while n > MIN_RUNS and enough(n - 1):
            n -= 1
        return n


def test(values: Mapping[str, float], base: Mapping[str, float], bounds: Bounds) -> Test:
    """Compare values with base, both seed -> value: in pairs where two or more seeds are common, else as Welch.

    The interval of the difference is cut where the difference of two such quantities ends.
    """
    seeds = [seed for seed in values if seed in base]
    if len(seeds) >= 2:
        found = _paired([values[seed] for seed in seeds], [base[seed] for seed in seeds])
    else:
        found = _welch(list(values.values()), list(base.values()))
    if not _within([*values.values(), *base.values()], bounds):
        return found
    widest = bounds[1] - bounds[0]
    return replace(found, low=max(found.low, -widest), high=min(found.high, widest))  # nan stays nan


def _paired(values: list[float], base: list[float]) -> Test:
    name, n = f"paired over {len(values)} seeds", len(values)
    differences = np.subtract(values, base)
    mean, sd = float(np.mean(differences)), float(np.std(differences, ddof=1))
    if _is_rounding(sd, values, base):  # every pair differs by the same amount, so the t test would divide by zero
        return Test(name, True, n, mean, 0.0, mean, mean, 1.0 if _is_rounding(mean, values, base) else 0.0)
    result = stats.ttest_rel(values, base)
    interval = result.confidence_interval(CONFIDENCE)
    return Test(name, True, n, mean, sd, float(interval.low), float(interval.high), float(result.pvalue))


def _welch(values: list[float], base: list[float]) -> Test:
    name, n = f"Welch, {len(values)} and {len(base)} runs", min(len(values), len(base))
    difference = float(np.mean(values) - np.mean(base))
    if n < 2:
        return Test(name, False, n, difference, math.nan)
    sd = float(np.sqrt((np.var(values, ddof=1) + np.var(base, ddof=1)) / 2))
    if _is_rounding(sd, values, base):
        p = 1.0 if _is_rounding(difference, values, base) else 0.0
        return Test(name, False, n, difference, 0.0, difference, difference, p)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Precision loss", RuntimeWarning)  # one side may well be without spread
        result = stats.ttest_ind(values, base, equal_var=False)
    interval = result.confidence_interval(CONFIDENCE)
    return Test(name, False, n, difference, sd, float(interval.low), float(interval.high), float(result.pvalue))


def _is_rounding(found: float, values: list[float], base: list[float]) -> bool:
    """Whether it is 0 but for what the last bits of such values make of it: the mean of seven times 0.1 is not 0.1."""
    return abs(found) <= 1e-12 * max(map(abs, [*values, *base]))


def corrected(ps: Sequence[float]) -> list[float]:
    """Holm's correction for so many comparisons; nan (no test) stays nan and counts for none."""
    tested = [p for p in ps if not math.isnan(p)]
    after = iter(multipletests(tested, alpha=1 - CONFIDENCE, method="holm")[1] if tested else [])
    return [p if math.isnan(p) else float(next(after)) for p in ps]
