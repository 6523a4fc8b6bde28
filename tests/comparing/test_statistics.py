"""The statistics, against published numbers and hand-worked ones, and by their own rules."""

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.power import TTestIndPower

from pipeline.comparing.statistics import ANY, Difference, difference, estimate, floored, shown_with, spread_range

# Student's sleep data (Biometrika 1908, 6, 20): hours gained by ten patients with each of two drugs. The numbers
# expected of it are those of R's help page of t.test, which has it as `sleep`.
FIRST = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
SECOND = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]

VALUES = st.lists(st.integers(-1000, 1000).map(lambda value: value / 64), min_size=2, max_size=8)  # exact in binary
SHIFTS = st.integers(-64, 64).map(float)
FACTORS = st.sampled_from([0.25, 0.5, 2.0, 8.0])
Z = 1.9599640


def by_seed(values, first=1):
    return {str(seed): value for seed, value in enumerate(values, start=first)}


def paired(values, base, bounds=ANY):
    return difference(by_seed(values), by_seed(base), bounds)


def welch(values, base, bounds=ANY):
    return difference(by_seed(values), by_seed(base, first=1000), bounds)


# The mean of one group


def test_an_estimate_of_students_sleep_data():
    """R: t.test(SECOND)$conf.int is 0.8976775 to 3.7623225; the standard deviation is 2.002249."""
    found = estimate(SECOND)
    assert (found.n, found.mean) == (10, pytest.approx(2.33))
    assert found.sd == pytest.approx(2.002249, abs=1e-6)
    assert (found.low, found.high) == pytest.approx((0.8976775, 3.7623225), abs=1e-7)


def test_one_value_has_a_mean_and_nothing_else():
    found = estimate([0.75])
    assert (found.n, found.mean) == (1, 0.75)
    assert all(map(math.isnan, (found.sd, found.low, found.high)))


def test_an_interval_is_cut_at_each_end_alone():
    near_0, near_1 = estimate([0.0, 0.125, 0.25], (0, 1)), estimate([1.0, 0.875, 0.75], (0, 1))
    free = estimate([0.0, 0.125, 0.25])
    assert (near_0.low, near_0.high) == (0.0, free.high)
    assert (near_1.low, near_1.high) == (1 - free.high, 1.0)


@pytest.mark.parametrize("seed", range(20))
def test_an_interval_of_accuracies_ends_at_0_and_1_and_holds_its_mean(seed):
    random = np.random.default_rng(seed)
    values = list(random.beta(*random.uniform(0.05, 20, 2), size=random.integers(2, 7)).round(2))
    found, free = estimate(values, (0, 1)), estimate(values)
    assert 0 <= found.low <= found.mean <= found.high <= 1
    assert (found.mean, found.sd) == (free.mean, free.sd)
    assert (found.low, found.high) == (max(free.low, 0), min(free.high, 1))


def test_percentages_of_a_foreign_run_are_left_as_they_are():
    assert estimate([97.0, 98.0], (0, 1)) == estimate([97.0, 98.0])


@settings(max_examples=12)
@given(VALUES, SHIFTS, FACTORS)
def test_an_interval_of_bounded_values_moves_and_stretches_with_them_and_their_bounds(values, shift, factor):
    low, high = min(values), max(values)
    found = estimate(values, (low, high))
    moved = estimate([factor * value + shift for value in values], (factor * low + shift, factor * high + shift))
    assert moved.mean == pytest.approx(factor * found.mean + shift, abs=1e-9)
    assert moved.sd == pytest.approx(factor * found.sd, abs=1e-9)
    assert (moved.low, moved.high) == pytest.approx((factor * found.low + shift, factor * found.high + shift), abs=1e-9)
    assert low <= found.low <= found.high <= high


# The difference of two groups, worked by hand


def test_alike_groups_with_common_seeds_have_the_plain_paired_interval():
    """Differences 2, 0, 2, 0: mean 1, variance 4/3, standard error sqrt(1/3); t(0.975, 3) = 3.182446."""
    found = paired([3.0, 2.0, 5.0, 4.0], [1.0, 2.0, 3.0, 4.0])
    assert (found.test, found.difference, found.freedom, found.skewness) == ("paired over 4 seeds", 1.0, 3, 0.0)
    assert found.error == pytest.approx(math.sqrt(1 / 3))
    half = 3.182446 * math.sqrt(1 / 3)
    assert found.interval(0.05) == pytest.approx((1 - half, 1 + half), abs=1e-6)
    assert found.p == pytest.approx(stats.ttest_rel([3, 2, 5, 4], [1, 2, 3, 4]).pvalue)


def test_alike_groups_with_other_seeds_have_the_plain_welch_interval():
    """Two variances of 5/3: standard error sqrt(5/6), 6 degrees of freedom; t(0.975, 6) = 2.446912."""
    found = welch([3.0, 4.0, 5.0, 6.0], [1.0, 2.0, 3.0, 4.0])
    assert (found.test, found.difference, found.skewness) == ("Welch, 4 and 4 runs", 2.0, 0.0)
    assert (found.error, found.freedom) == pytest.approx((math.sqrt(5 / 6), 6))
    half = 2.446912 * math.sqrt(5 / 6)
    assert found.interval(0.05) == pytest.approx((2 - half, 2 + half), abs=1e-6)
    assert found.p == pytest.approx(stats.ttest_ind([3, 4, 5, 6], [1, 2, 3, 4], equal_var=False).pvalue)


def test_a_smaller_level_takes_the_quantile_of_that_level():
    """t(0.99975, 3) = 20.3993: what a first look of two contrasts spends, 5 % times 0.01, is two tails of it."""
    found = paired([3.0, 2.0, 5.0, 4.0], [1.0, 2.0, 3.0, 4.0])
    low, high = found.interval(0.0005)
    assert (high - low) / 2 == pytest.approx(stats.t.ppf(0.99975, 3) * math.sqrt(1 / 3))


def test_unequal_groups_are_widened_for_the_skewness_that_does_not_cancel():
    """2, 4, 6, 8 and 1, 2, 3: parts 5/3 and 1/3 in the squared standard error 2, which is sqrt 2 then.

    Degrees of freedom 4 / ((5/3)**2 / 3 + (1/3)**2 / 2) = 4.0755. Third moments by their sizes, (5/3)**1.5 / sqrt 4
    less (1/3)**1.5 / sqrt 3, are 0.964718, over 2**1.5 that is 0.341079; squared, times 5 sqrt 4: 1.163350.
    """
    found, freedom = welch([2, 4, 6, 8], [1, 2, 3]), 4 / (25 / 27 + 1 / 18)
    assert (found.test, found.difference) == ("Welch, 4 and 3 runs", 3.0)
    assert (found.error, found.freedom) == pytest.approx((math.sqrt(2), freedom))
    assert found.skewness == pytest.approx(1.163350, abs=1e-5)
    half = stats.t.ppf(0.975, freedom) * math.sqrt(2) * (1 + found.skewness * Z / 3)
    assert found.interval(0.05) == pytest.approx((3 - half, 3 + half), abs=1e-6)


def test_a_group_that_alone_makes_the_standard_error_is_as_skew_as_can_be():
    """5 / sqrt 4, the larger part's size, whichever side it is on."""
    constant, spread = [2.0, 2.0, 2.0], [1.0, 2.0, 3.0, 4.0]
    assert welch(spread, constant).skewness == pytest.approx(5 / 2)
    assert welch(constant, spread).skewness == pytest.approx(5 / 2)


def test_pairs_are_widened_as_their_groups_are_unlike():
    """In pairs over 3 seeds with all the spread on one side: differences 1, 0, -1, standard error sqrt(1/3)."""
    found = paired([3.0, 2.0, 1.0], [2.0, 2.0, 2.0])
    assert (found.test, found.skewness) == ("paired over 3 seeds", pytest.approx(5 / math.sqrt(3)))
    half = 4.3026527 * math.sqrt(1 / 3) * (1 + 5 / math.sqrt(3) * Z / 3)
    assert found.interval(0.05) == pytest.approx((-half, half), abs=1e-5)


def test_students_sleep_data_are_widened_by_the_tenth_that_their_spreads_differ():
    found = paired(SECOND, FIRST)
    assert found.difference == pytest.approx(1.58, abs=1e-12)
    assert found.error == pytest.approx(1.229995 / math.sqrt(10), abs=1e-6)
    plain = stats.t.ppf(0.975, 9) * found.error
    low, high = found.interval(0.05)
    assert 1 < (high - low) / 2 / plain < 1.02


# Which runs are compared, and how


def test_seeds_make_the_pairs_whatever_their_order():
    """In the order given the differences would be 3, 1, -1."""
    found = difference({"1": 4.0, "2": 3.0, "3": 2.0}, {"3": 1.0, "2": 2.0, "1": 3.5}, ANY)
    assert (found.test, found.difference) == ("paired over 3 seeds", pytest.approx(2.5 / 3))
    assert found.error == pytest.approx(np.std([0.5, 1.0, 1.0], ddof=1) / math.sqrt(3))


def test_one_seed_that_is_not_common_makes_all_runs_count_without_pairs():
    values, base = {"1": 4.0, "2": 3.0, "9": 5.0}, {"1": 3.5, "2": 2.0}
    found = difference(values, base, ANY)
    assert (found.test, found.difference) == ("Welch, 3 and 2 runs", 1.25)


def test_twelve_and_twelve_runs_with_two_seeds_in_common_are_compared_by_all_24():
    noise = np.array([-0.15, -0.1, -0.05, -0.05, 0, 0, 0, 0, 0.05, 0.05, 0.1, 0.15])
    found = difference(by_seed(0.3 + noise), by_seed(noise, first=11), ANY)
    assert (found.test, found.difference) == ("Welch, 12 and 12 runs", pytest.approx(0.3))
    assert found.freedom == pytest.approx(22)
    assert found.interval(0.05)[0] > 0.2


@pytest.mark.parametrize(("values", "base"), [([3.0], [1.0, 2.0]), ([2.5, 3.5], [1.5]), ([3.0], [1.5])])
def test_against_a_single_run_there_is_a_difference_and_no_interval(values, base):
    found = welch(values, base)
    assert (found.test, found.difference) == ("", 1.5)
    assert all(map(math.isnan, (found.error, found.p, *found.interval(0.05))))


# Without a spread


@pytest.mark.parametrize("compared", [paired, welch])
@pytest.mark.parametrize("shift", [0.0, 0.25, -0.25])
def test_without_any_spread_there_is_no_interval(compared, shift):
    found = compared([0.5 + shift] * 3, [0.5] * 3)
    assert (found.test, found.difference) == ("", shift)
    assert all(map(math.isnan, (found.error, found.p, *found.interval(0.05))))


@pytest.mark.parametrize("n", [2, 3, 7, 12])
def test_a_constant_is_the_same_in_samples_of_any_size(n):
    """The mean of seven times 0.1 is another float than that of four times."""
    assert math.isnan(welch([0.1] * n, [0.1] * 4).error)
    assert math.isnan(welch([0.1] * n, [0.2] * 4).error)


@pytest.mark.parametrize("base", [[0.7, 0.2, 0.6], [1.0, 2.0, 4.0]])
def test_pairs_that_differ_by_the_same_are_no_certainty_but_judged_by_the_groups_spreads(base):
    """Also where they do so but for rounding: 0.7 + 0.1 less 0.7 is not 0.2 + 0.1 less 0.2."""
    found = paired([each + 0.1 for each in base], base)
    spread = float(np.std(base, ddof=1))
    assert (found.test, found.difference) == ("Welch, 3 and 3 runs", pytest.approx(0.1))
    assert found.error == pytest.approx(spread * math.sqrt(2 / 3))
    low, high = found.interval(0.05)
    assert low < 0 < high


def test_the_smallest_numbers_have_a_spread_like_any_other():
    tiny = 2.0**-50
    found = paired([3.0, 5.0, 4.0], [1.0, 2.0, 4.0])
    small = paired([3 * tiny, 5 * tiny, 4 * tiny], [tiny, 2 * tiny, 4 * tiny])
    assert (small.difference, small.error) == (found.difference * tiny, found.error * tiny)
    assert small.p == pytest.approx(found.p)


# Floors


def test_a_variance_counts_for_no_less_than_the_median_but_for_at_most_three_times_its_own():
    assert floored([1.0, 4.0, 9.0], 3) == [3.0, 4.0, 9.0]
    assert floored([2.0, 4.0, 9.0], 3) == [4.0, 4.0, 9.0]
    assert floored([0.0, 4.0, 9.0], 3) == [0.0, 4.0, 9.0]
    assert floored([1.0, 2.0], 2) == [1.5, 2.0]


def test_too_few_variances_are_left_as_they_are():
    assert floored([1.0, 4.0], 3) == [1.0, 4.0]
    assert floored([], 2) == []


def test_a_group_of_one_run_takes_no_floor_from_the_others():
    first, *others = floored([math.nan, 1.0, 4.0, 9.0], 3)
    assert math.isnan(first)
    assert others == [3.0, 4.0, 9.0]
    assert floored([1.0, 4.0, math.nan], 3)[:2] == [1.0, 4.0]


def test_raised_variances_widen_an_interval_and_leave_its_difference():
    values, base = by_seed([1.0, 2.0, 3.0]), by_seed([1.0, 2.0, 3.0], first=10)
    found = difference(values, base, ANY, (4.0, 2.0))
    assert (found.difference, found.error) == (0.0, pytest.approx(math.sqrt(4 / 3 + 2 / 3)))
    assert found.skewness == 0  # by the groups' own spreads
    pairs = difference(values, by_seed([1.0, 3.0, 2.0]), ANY, (1.0, 1.0), 9.0)
    assert (pairs.test, pairs.error) == ("paired over 3 seeds", pytest.approx(math.sqrt(3)))


# Ends


def test_the_difference_of_two_shares_ends_at_1_and_that_of_two_losses_nowhere():
    wild = [0.0, 1.0, 0.0], [1.0, 0.0, 0.5]
    assert paired(*wild, (0, 1)).interval(0.05) == (-1, 1)
    assert welch(*wild, (0, 1)).interval(0.05) == (-1, 1)
    assert paired(*wild, (0, math.inf)).interval(0.05) == paired(*wild).interval(0.05)
    assert paired(*wild, (0, 40)).interval(0.05) == paired(*wild).interval(0.05)
    assert paired(*wild, (-0.5, 1.0)).interval(0.05) == (-1.5, 1.5)


@pytest.mark.parametrize("outside", [-0.5, 1.5])
def test_a_value_outside_the_bounds_lifts_them(outside):
    wild = [0.0, 1.0, outside], [1.0, 0.0, 0.5]
    assert paired(*wild, (0, 1)) == paired(*wild)
    assert paired(*reversed(wild), (0, 1)) == paired(*reversed(wild))


# p: the level at which the interval touches 0


@pytest.mark.parametrize("skewness", [0.0, 1.5])
@pytest.mark.parametrize("level", [0.3, 0.05, 0.001, 1e-6])
def test_p_is_the_level_at_which_the_interval_touches_0(level, skewness):
    half = Difference("", 0.0, 1.0, 7, skewness).interval(level)[1]
    assert Difference("", half, 1.0, 7, skewness).p == pytest.approx(level, rel=1e-4)
    assert Difference("", -half, 1.0, 7, skewness).p == pytest.approx(level, rel=1e-4)


def test_p_of_no_difference_is_1_and_of_any_difference_above_0():
    assert Difference("", 0.0, 1.0, 7).p == pytest.approx(1.0)
    assert Difference("", 1e9, 1.0, 30).p == 1e-15


# By their own rules


@settings(max_examples=12)
@given(VALUES, SHIFTS, FACTORS, st.randoms(use_true_random=False), st.sampled_from([paired, welch]))
def test_a_comparison_moves_with_no_constant_and_stretches_with_a_factor(values, shift, factor, random, compared):
    base = [value + random.randint(-9, 9) / 64 for value in values]
    found = compared(values, base)
    moved = compared([factor * each + shift for each in values], [factor * each + shift for each in base])
    assert moved.test == found.test
    assert (moved.freedom, moved.skewness) == pytest.approx((found.freedom, found.skewness), abs=1e-9, nan_ok=True)
    assert moved.p == pytest.approx(found.p, abs=1e-9, nan_ok=True)
    ends = [factor * end for end in found.interval(0.01)]
    assert moved.interval(0.01) == pytest.approx(tuple(ends), abs=1e-9, nan_ok=True)


@settings(max_examples=12)
@given(VALUES, st.randoms(use_true_random=False), st.sampled_from([paired, welch]))
def test_a_comparison_with_its_sides_exchanged_says_the_opposite(values, random, compared):
    base = [value + random.randint(-9, 9) / 64 for value in values]
    found, turned = compared(values, base), compared(base, values)
    low, high = found.interval(0.05)
    assert turned.interval(0.05) == pytest.approx((-high, -low), nan_ok=True)
    assert turned.p == pytest.approx(found.p, nan_ok=True)


@settings(max_examples=12)
@given(VALUES, st.randoms(use_true_random=False), st.booleans())
def test_the_order_of_the_seeds_decides_nothing(values, random, in_pairs):
    base = by_seed([value + random.randint(-9, 9) / 64 for value in values], first=1 if in_pairs else 1000)
    mixed = list(by_seed(values).items())
    random.shuffle(mixed)
    found, other = difference(by_seed(values), base, ANY), difference(dict(mixed), base, ANY)
    assert other.test == found.test
    assert other.interval(0.05) == pytest.approx(found.interval(0.05), abs=1e-9, nan_ok=True)


@settings(max_examples=25)
@given(VALUES, st.randoms(use_true_random=False), st.sampled_from([paired, welch]))
def test_the_interval_leaves_out_0_where_p_is_less_than_its_level(values, random, compared):
    found = compared(values, [value + random.randint(-64, 64) / 64 for value in values])
    assume(not math.isnan(found.error))
    low, high = found.interval(0.05)
    assert (found.p < 0.05) == (not low <= 0 <= high)
    assert low < found.difference < high


# How many it takes


@pytest.mark.parametrize(("effect", "pairs"), [(0.2, 199), (0.5, 34), (0.8, 15)])
def test_pairs_show_an_effect_with_as_many_as_the_tables_of_power_say(effect, pairs):
    """Two-sided, 5 %, power 80 %: Cohen, Statistical Power Analysis (1988), table 2.4.1, and G*Power."""
    of_a_group = effect * math.sqrt(2)  # two groups' differences spread by the root of 2 more
    assert shown_with(of_a_group, pairs, pairs, 0.05) >= 0.8 > shown_with(of_a_group, pairs - 1, pairs - 1, 0.05)


@pytest.mark.parametrize(("effect", "n", "m", "level"), [(0.5, 20, 80, 0.05), (1.0, 10, 18, 0.0215), (2, 5, 8, 0.0005)])
def test_unequal_groups_show_an_effect_as_statsmodels_has_it(effect, n, m, level):
    expected = TTestIndPower().power(effect, n, level, ratio=m / n)
    assert shown_with(effect, n, m, level) == pytest.approx(expected, abs=1e-3)


def test_an_effect_of_many_spreads_is_shown_for_certain():
    """SciPy's noncentral t has no number there, of which 2,560 seeds were made that it takes."""
    assert [shown_with(effect, 40, 40, 0.005) for effect in (8.0, 9.0, 100.0, 1e6, 1e12)] == pytest.approx([1.0] * 5)


def test_the_pooled_spread_lies_between_these_two_with_80_percent():
    """Two variances of 4 with 4 degrees of freedom each; chi squared of 8 has its tenths at 3.48954 and 13.36157."""
    found = spread_range([4.0, 4.0], [5, 5])
    assert found == pytest.approx((math.sqrt(32 / 13.36157), math.sqrt(32 / 3.48954)), abs=1e-5)
    assert spread_range([4.0, math.nan, 4.0], [5, 1, 5]) == found
    assert all(map(math.isnan, spread_range([math.nan], [1])))
