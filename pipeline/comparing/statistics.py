"""The statistics of a comparison: means, and the interval of a difference at whatever level a look may spend.

Pairs where all seeds are common, else Welch's interval over all runs. Both are widened for two things that a few seeds
cannot show and that would make them wrong (simulated in benchmarks/verdicts.py, 5 % are held in every case there):

- Skewness. Accuracies near their ceiling have a long tail to the left. In the difference of two alike groups it
  cancels; where one group's spread is three times the other's, Welch errs in 10 % instead of 5, and more at smaller
  levels. The first term of Edgeworth's expansion (Hall, 1992, The Bootstrap and Edgeworth Expansion) says by how much
  a quantile z of t grows with the skewness of the difference's mean: by z / 3 times. That skewness is taken to be as
  far from 0 as the groups' parts in the standard error differ.
- A spread that is small by luck. Of several groups some will have one, and would be found to differ: no group's
  variance counts for less than the median group's, but at most for three times its own.

Intervals end where the quantity does (`Bounds`): a mean of accuracies lies in [0, 1], a difference of two in [-1, 1]. A
t interval cut there keeps its coverage, since the truth lies there too (bounded means: Mandelkern, 2002, Statistical
Science 17, 149).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
import scipy  # its parts are imported where they are first asked for: special takes half a second

CONFIDENCE, POWER = 0.95, 0.8
Bounds = tuple[float, float]
ANY = (-math.inf, math.inf)
SKEWNESS = 5.0  # that of a group which alone makes the standard error
FLOOR_FACTOR = 3.0  # of a variance that is raised


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
    n, centre = len(values), fmean(values)
    if n < 2:
        return Estimate(n, centre, math.nan, math.nan, math.nan)
    sd = math.sqrt(variance(values))
    half = float(scipy.special.stdtrit(n - 1, (1 + CONFIDENCE) / 2)) * sd / math.sqrt(n)
    low, high = centre - half, centre + half
    if _within(values, bounds):
        low, high = max(low, bounds[0]), min(high, bounds[1])
    return Estimate(n, centre, sd, low, high)


def _within(values: Sequence[float], bounds: Bounds) -> bool:
    """Whether the quantity ends at the bounds: a foreign run's accuracy may be given in percent."""
    return bounds[0] <= min(values) and max(values) <= bounds[1]


def floored(variances: Sequence[float], least: int) -> list[float]:
    """The variances, none less than the median, but at most three times what it was; if there are at least so many."""
    known = [each for each in variances if not math.isnan(each)]
    if len(known) < least:
        return list(variances)
    median = float(np.median(known))
    return [max(each, min(median, FLOOR_FACTOR * each)) for each in variances]  # nan stays nan


@dataclass(frozen=True)
class Difference:
    """A group's mean less the baseline's, with what its interval is made of.

    Attributes:
        test: in words; empty where there is no spread to judge by.
        error: the standard error; nan where there is none.
        skewness: of the difference, that the interval allows for.
    """

    test: str
    difference: float
    error: float = math.nan
    freedom: float = math.nan
    skewness: float = 0.0
    bounds: Bounds = ANY

    def interval(self, level: float) -> tuple[float, float]:
        """Low and high, wrong with a chance of `level`; nan where there is no spread to judge by."""
        half = self.error * self._quantile(level)
        low, high = self.difference - half, self.difference + half
        return max(low, self.bounds[0]), min(high, self.bounds[1])  # nan stays nan

    def _quantile(self, level: float) -> float:
        widened = 1 + self.skewness * -float(scipy.special.ndtri(level / 2)) / 3
        return widened * -float(scipy.special.stdtrit(self.freedom, level / 2))

    @property
    def p(self) -> float:
        """The level at which the interval would just touch 0."""
        if math.isnan(self.error):
            return math.nan
        ratio, least = abs(self.difference) / self.error, 1e-15
        if ratio >= self._quantile(least):
            return least
        return float(scipy.optimize.brentq(lambda level: self._quantile(level) - ratio, least, 1.0))


def difference(
    values: Mapping[str, float],
    base: Mapping[str, float],
    bounds: Bounds = ANY,
    variances: tuple[float, float] | None = None,
    variance_of_pairs: float | None = None,
) -> Difference:
    """Compare values with base, both seed -> value: in pairs if they have the same seeds, else as Welch.

    Args:
        values, base: at least one each.
        bounds: where such values end.
        variances: of values and of base, raised by what other groups show; None: their own.
        variance_of_pairs: of the pairs' differences, raised in the same way.
    """
    widest = bounds[1] - bounds[0] if _within([*values.values(), *base.values()], bounds) else math.inf
    ends, centre = (-widest, widest), fmean(values.values()) - fmean(base.values())
    n, m = len(values), len(base)
    if min(n, m) < 2:
        return Difference("", centre, bounds=ends)
    own = variance([*values.values()]), variance([*base.values()])
    skewness = _skewness(own[0] / n, own[1] / m, n, m)
    if values.keys() == base.keys():
        pairs = variance_of_pairs if variance_of_pairs is not None else variance(in_pairs(values, base))
        if not is_rounding(math.sqrt(pairs), values, base):
            return Difference(f"paired over {n} seeds", centre, math.sqrt(pairs / n), n - 1, skewness, ends)
    parts = [each / size for each, size in zip(variances or own, (n, m), strict=True)]
    if is_rounding(math.sqrt(max(parts)), values, base):
        return Difference("", centre, bounds=ends)  # all alike: that they have no spread is chance, or no measurement
    freedom = sum(parts) ** 2 / (parts[0] ** 2 / (n - 1) + parts[1] ** 2 / (m - 1))
    return Difference(f"Welch, {n} and {m} runs", centre, math.sqrt(sum(parts)), freedom, skewness, ends)


def variance(values: Sequence[float]) -> float:
    """With n - 1; nan of one value."""
    if len(values) < 2:
        return math.nan
    centre = fmean(values)
    return math.fsum((each - centre) ** 2 for each in values) / (len(values) - 1)


def in_pairs(values: Mapping[str, float], base: Mapping[str, float]) -> list[float]:
    """The differences, seed by seed."""
    return [value - base[seed] for seed, value in values.items()]


def _skewness(part: float, other: float, n: int, m: int) -> float:
    """How skew the difference may be, by the two parts of its squared standard error: 0 where they cancel."""
    if part + other == 0:
        return 0.0
    larger = n if part > other else m
    cancelled = abs(float(part**1.5 / math.sqrt(n) - other**1.5 / math.sqrt(m))) / float(part + other) ** 1.5
    return SKEWNESS * float(cancelled) ** 2 * math.sqrt(larger)


def is_rounding(found: float, values: Mapping[str, float], base: Mapping[str, float]) -> bool:
    """Whether it is 0 but for what the last bits of such values make of it: the mean of seven times 0.1 is not 0.1."""
    return found <= 1e-12 * max(map(abs, [*values.values(), *base.values()]))


def shown_with(effect: float, n: int, m: int, level: float) -> float:
    """The chance that a difference of so many standard deviations is shown by n and m runs."""
    freedom = n + m - 2 if n != m else n - 1  # of equal numbers the same seeds are taken, which makes them pairs
    quantile = -float(scipy.special.stdtrit(freedom, level / 2))
    missed = float(scipy.special.nctdtr(freedom, effect / math.sqrt(1 / n + 1 / m), quantile))
    return 1.0 if math.isnan(missed) else 1 - missed  # it is nan where it is less than a float tells from 0


def spread_range(variances: Sequence[float], sizes: Sequence[int]) -> tuple[float, float]:
    """The standard deviation pooled over the groups: between what and what it lies, with 80 %; nan without any."""
    freedom = sum(size - 1 for size in sizes if size > 1)
    if not freedom:
        return math.nan, math.nan
    pairs = zip(variances, sizes, strict=True)
    squares = sum(each * (size - 1) for each, size in pairs if size > 1)
    low, high = (math.sqrt(squares / float(scipy.special.chdtri(freedom, tail))) for tail in (0.1, 0.9))
    return low, high
