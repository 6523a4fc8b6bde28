"""The statistics, against published numbers and hand-worked ones, and by their own rules."""

import gc
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from pipeline.analysis import statistics
from pipeline.comparing.statistics import ANY, corrected, estimate

# Student's sleep data (Biometrika 1908, 6, 20): hours gained by ten patients with each of two drugs. The numbers
# expected of it are those of R's help page of t.test, which has it as `sleep`.
FIRST = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
SECOND = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]

VALUES = st.lists(st.integers(-1000, 1000).map(lambda value: value / 64), min_size=2, max_size=8)  # exact in binary
SHIFTS = st.integers(-64, 64).map(float)
FACTORS = st.sampled_from([0.25, 0.5, 2.0, 8.0])


@pytest.fixture(autouse=True, scope="module")
def little_garbage():
    """statsmodels collects garbage at each correction: with all that is imported, nine tenths of the time."""
    gc.freeze()


def by_seed(values, first=1):
    return {str(seed): value for seed, value in enumerate(values, start=first)}


def paired(values, base, bounds=ANY):
    return statistics.test(by_seed(values), by_seed(base), bounds)


def welch(values, base, bounds=ANY):
    return statistics.test(by_seed(values), by_seed(base, first=1000), bounds)


def needed(in_pairs, sd, smallest, alpha):
    return statistics.Test("", in_pairs, 5, 0.0, sd).needed(smallest, alpha)


def test_the_paired_test_of_students_sleep_data():
    found = paired(SECOND, FIRST)
    assert (found.name, found.paired, found.n) == ("paired over 10 seeds", True, 10)
    assert found.difference == pytest.approx(1.58, abs=1e-12)
    assert found.sd == pytest.approx(1.229995, abs=1e-6)
    assert (found.low, found.high) == pytest.approx((0.7001142, 2.4598858), abs=1e-7)
    assert found.p == pytest.approx(0.002833, abs=1e-6)


def test_welchs_test_of_students_sleep_data():
    """The pooled spread: variances 3.200556 and 4.009000, their mean 3.604778, its root 1.898625."""
    found = welch(SECOND, FIRST)
    assert (found.name, found.paired, found.n) == ("Welch, 10 and 10 runs", False, 10)
    assert found.difference == pytest.approx(1.58, abs=1e-12)
    assert found.sd == pytest.approx(1.898625, abs=1e-6)
    assert (found.low, found.high) == pytest.approx((-0.2054832, 3.3654832), abs=1e-7)
    assert found.p == pytest.approx(0.07939, abs=1e-5)


def test_welchs_test_of_unequal_samples_by_hand():
    """1, 2, 3 and 2, 4, 6, 8: variances 1 and 20/3; standard error sqrt(1/3 + 5/3) = sqrt 2; t = 3 / sqrt 2.

    Degrees of freedom 2**2 / ((1/3)**2 / 2 + (5/3)**2 / 3) = 108/26.5... = 4.0755.
    """
    found = welch([2, 4, 6, 8], [1, 2, 3])
    freedom = 4 / (1 / 18 + 25 / 27)
    assert (found.name, found.n, found.difference) == ("Welch, 4 and 3 runs", 3, 3.0)
    assert found.sd == pytest.approx(math.sqrt((20 / 3 + 1) / 2))
    assert found.p == pytest.approx(2 * stats.t.sf(3 / math.sqrt(2), freedom))
    half = stats.t.ppf(0.975, freedom) * math.sqrt(2)
    assert (found.low, found.high) == pytest.approx((3 - half, 3 + half))


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


def test_values_without_spread_have_an_interval_of_no_width():
    found = estimate([0.75, 0.75])
    assert (found.n, found.mean, found.sd, found.low, found.high) == (2, 0.75, 0, 0.75, 0.75)


def test_seeds_make_the_pairs_whatever_their_order():
    """In the order given the differences would be 3, 1, -1, of which no test shows anything."""
    found = statistics.test({"1": 4.0, "2": 3.0, "3": 2.0}, {"3": 1.0, "2": 2.0, "1": 3.5}, ANY)
    assert (found.name, found.difference) == ("paired over 3 seeds", pytest.approx(2.5 / 3))
    assert found.p == stats.ttest_rel([4.0, 3.0, 2.0], [3.5, 2.0, 1.0]).pvalue


def test_two_common_seeds_make_pairs_and_the_others_count_for_nothing():
    found = statistics.test({"1": 4.0, "2": 3.0, "9": 100.0}, {"2": 2.0, "1": 3.5, "8": -7.0}, ANY)
    assert (found.name, found.paired, found.n, found.difference) == ("paired over 2 seeds", True, 2, 0.75)


def test_one_common_seed_makes_no_pairs():
    found = statistics.test({"1": 4.0, "2": 3.0}, {"2": 2.0, "7": 3.5}, ANY)
    assert (found.name, found.paired, found.n) == ("Welch, 2 and 2 runs", False, 2)
    assert found.p == stats.ttest_ind([4.0, 3.0], [2.0, 3.5], equal_var=False).pvalue


@pytest.mark.parametrize(("values", "base"), [([3.0], [1.0, 2.0]), ([2.5, 3.5], [1.5]), ([3.0], [1.5])])
def test_against_a_single_run_there_is_a_difference_and_no_test(values, base):
    found = welch(values, base)
    assert (found.name, found.paired, found.n) == (f"Welch, {len(values)} and {len(base)} runs", False, 1)
    assert found.difference == 1.5
    assert all(map(math.isnan, (found.sd, found.low, found.high, found.p)))
    assert found.needed(0.001, 0.05) is None


@pytest.mark.parametrize("compared", [paired, welch])
@pytest.mark.parametrize(("shift", "p"), [(0.0, 1.0), (0.25, 0.0), (-0.25, 0.0)])
def test_without_any_spread_it_is_certain(compared, shift, p):
    found = compared([0.5 + shift] * 3, [0.5] * 3)
    assert (found.n, found.difference, found.sd, found.p) == (3, shift, 0, p)
    assert (found.low, found.high) == (shift, shift)
    assert found.needed(0.001, 0.05) == 3


def test_pairs_that_differ_by_the_same_but_for_rounding_are_without_spread():
    found = paired([0.7 + 0.1, 0.2 + 0.1, 0.6 + 0.1], [0.7, 0.2, 0.6])
    assert (found.sd, found.p) == (0.0, 0.0)
    assert found.low == found.high == found.difference == pytest.approx(0.1)


@pytest.mark.parametrize("n", [2, 3, 7, 12])
def test_a_constant_is_the_same_in_samples_of_any_size(n):
    """The mean of seven times 0.1 is another float than that of four times: of that Welch made p = 0.0498."""
    found = welch([0.1] * n, [0.1] * 4)
    assert (found.sd, found.p) == (0.0, 1.0)
    assert found.difference == pytest.approx(0, abs=1e-15)
    assert welch([0.1] * n, [0.2] * 4).p == 0.0


def test_one_side_without_spread_is_tested_without_a_warning():
    found = welch([0.1, 0.1, 0.1], [0.2, 0.3, 0.4])
    assert found.sd == pytest.approx(0.1 / math.sqrt(2))
    assert found.p == pytest.approx(2 * stats.t.sf(0.2 / (0.1 / math.sqrt(3)), 2))


def test_the_smallest_numbers_have_a_spread_like_any_other():
    tiny = 2.0**-50
    found, small = (
        paired([3.0, 5.0, 4.0], [1.0, 2.0, 4.0]),
        paired([3 * tiny, 5 * tiny, 4 * tiny], [tiny, 2 * tiny, 4 * tiny]),
    )
    assert (small.difference, small.sd) == (found.difference * tiny, found.sd * tiny)
    assert small.p == pytest.approx(found.p)


def test_holms_own_example():
    """p values 0.01, 0.04, 0.03, 0.005: the smallest times 4, the next times 3, 2, 1, none below the one before."""
    assert corrected([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_what_was_not_tested_counts_for_no_comparison():
    found = corrected([math.nan, 0.04, math.nan, 0.02])
    assert [found[1], found[3]] == pytest.approx([0.04, 0.04])
    assert math.isnan(found[0])
    assert math.isnan(found[2])
    assert corrected([]) == []
    assert all(map(math.isnan, corrected([math.nan])))
    assert corrected([0.03]) == [pytest.approx(0.03)]
    assert corrected([0.6, 0.7]) == [1.0, 1.0]


def test_a_corrected_value_is_never_below_its_own():
    ps = [0.5, 0.001, 0.2, 0.02, 0.9]
    assert all(after >= before for before, after in zip(ps, corrected(ps), strict=True))


@pytest.mark.parametrize(("effect", "in_pairs", "unpaired"), [(0.2, 199, 394), (0.5, 34, 64), (0.8, 15, 26)])
def test_it_takes_as_many_runs_as_the_tables_of_power_say(effect, in_pairs, unpaired):
    """Two-sided, 5 %, power 80 %: Cohen, Statistical Power Analysis (1988), table 2.4.1, and G*Power."""
    assert needed(True, 2.0, 2 * effect, 0.05) == in_pairs
    assert needed(False, 2.0, 2 * effect, 0.05) == unpaired


def power(effect, n, alpha, in_pairs):
    """How often the t test shows the effect: normal means over every spread that chi-squared gives the sample."""
    freedom, shift = (n - 1, effect * math.sqrt(n)) if in_pairs else (2 * n - 2, effect * math.sqrt(n / 2))
    spread = np.sqrt(stats.chi2.ppf((np.arange(5_000) + 0.5) / 5_000, freedom) / freedom)
    return stats.norm.sf(stats.t.ppf(1 - alpha / 2, freedom) * spread - shift).mean()


@pytest.mark.parametrize("in_pairs", [True, False])
@pytest.mark.parametrize(("effect", "alpha"), [(0.3, 0.05), (0.7, 0.025), (1.3, 0.01), (3.0, 0.05)])
def test_it_takes_no_run_more_and_no_run_less(effect, alpha, in_pairs):
    n = needed(in_pairs, 1.0, effect, alpha)
    assert power(effect, n, alpha, in_pairs) >= 0.8
    assert n == 3 or power(effect, n - 1, alpha, in_pairs) < 0.8


@pytest.mark.parametrize("in_pairs", [True, False])
def test_it_takes_at_least_3_runs_and_more_than_1000_are_not_counted(in_pairs):
    assert needed(in_pairs, 1.0, 19.9, 0.05) == 3
    assert needed(in_pairs, 1.0, 1e9, 0.05) == 3
    assert needed(in_pairs, 1.0, 1e-3, 0.05) == 1000
    assert needed(in_pairs, math.nan, 1.0, 0.05) is None


@pytest.mark.parametrize(
    ("effect", "comparisons", "share"),
    [(5, 5, 0.531), (5, 10, 0.316), (12, 40, 0.420), (20, 100, 0.452), (25, 100, 0.610)],
)
def test_many_comparisons_take_more_than_3_pairs_also_of_a_plain_effect(effect, comparisons, share):
    """Shares of 200,000 simulated experiments of three pairs in which the test speaks."""
    alpha = 0.05 / comparisons
    assert power(effect, 3, alpha, in_pairs=True) == pytest.approx(share, abs=0.003)
    assert power(effect, needed(True, 1.0, effect, alpha), alpha, in_pairs=True) >= 0.8


def test_the_difference_of_two_shares_ends_at_1_and_that_of_two_losses_nowhere():
    wild = [0.0, 1.0, 0.0], [1.0, 0.0, 0.5]
    assert (paired(*wild, (0, 1)).low, paired(*wild, (0, 1)).high) == (-1, 1)
    assert (welch(*wild, (0, 1)).low, welch(*wild, (0, 1)).high) == (-1, 1)
    assert paired(*wild, (0, math.inf)) == paired(*wild)
    assert (paired(*wild, (0, 4)).low, paired(*wild, (0, 4)).high) == (paired(*wild).low, paired(*wild).high)
    half = paired(*wild, (-0.5, 1.0))
    assert (half.low, half.high) == (-1.5, 1.5)


@pytest.mark.parametrize("outside", [-0.5, 1.5])
def test_a_value_outside_the_bounds_lifts_them(outside):
    wild = [0.0, 1.0, outside], [1.0, 0.0, 0.5]
    assert paired(*wild, (0, 1)) == paired(*wild)
    assert paired(*reversed(wild), (0, 1)) == paired(*reversed(wild))
    assert estimate([0.0, outside], (0, 1)) == estimate([0.0, outside])


def test_an_interval_is_cut_at_each_end_alone():
    near_0, near_1 = estimate([0.0, 0.125, 0.25], (0, 1)), estimate([1.0, 0.875, 0.75], (0, 1))
    free = estimate([0.0, 0.125, 0.25])
    assert (near_0.low, near_0.high) == (0.0, free.high)
    assert (near_1.low, near_1.high) == (1 - free.high, 1.0)


@settings(max_examples=12)
@given(VALUES, SHIFTS, FACTORS)
def test_an_interval_moves_and_stretches_with_its_values(values, shift, factor):
    found, moved = estimate(values), estimate([factor * value + shift for value in values])
    assert moved.n == found.n
    assert (moved.mean, moved.low, moved.high) == pytest.approx(
        tuple(factor * each + shift for each in (found.mean, found.low, found.high)), abs=1e-9
    )
    assert moved.sd == pytest.approx(factor * found.sd, abs=1e-9)


@settings(max_examples=12)
@given(VALUES, SHIFTS, FACTORS)
def test_an_interval_of_bounded_values_moves_and_stretches_with_them_and_their_bounds(values, shift, factor):
    low, high = min(values), max(values)
    found = estimate(values, (low, high))
    moved = estimate([factor * value + shift for value in values], (factor * low + shift, factor * high + shift))
    assert (moved.low, moved.high) == pytest.approx((factor * found.low + shift, factor * found.high + shift), abs=1e-9)
    assert low <= found.low <= found.high <= high


@settings(max_examples=12)
@given(VALUES, SHIFTS, FACTORS, st.randoms(use_true_random=False), st.sampled_from([paired, welch]))
def test_a_comparison_moves_with_no_constant_and_stretches_with_a_factor(values, shift, factor, random, compared):
    base = [value + random.randint(-9, 9) / 64 for value in values]
    found = compared(values, base)
    moved = compared([factor * each + shift for each in values], [factor * each + shift for each in base])
    assert (moved.name, moved.n) == (found.name, found.n)
    assert moved.p == pytest.approx(found.p, abs=1e-9)
    for name in ("difference", "sd", "low", "high"):
        assert getattr(moved, name) == pytest.approx(factor * getattr(found, name), abs=1e-9)


@settings(max_examples=12)
@given(VALUES, st.randoms(use_true_random=False), st.sampled_from([paired, welch]))
def test_a_comparison_with_its_sides_exchanged_says_the_opposite(values, random, compared):
    base = [value + random.randint(-9, 9) / 64 for value in values]
    found, turned = compared(values, base), compared(base, values)
    assert (turned.difference, turned.low, turned.high) == pytest.approx((-found.difference, -found.high, -found.low))
    assert (turned.sd, turned.p) == pytest.approx((found.sd, found.p))


@settings(max_examples=12)
@given(VALUES, st.randoms(use_true_random=False), st.booleans())
def test_the_order_of_the_seeds_decides_nothing(values, random, in_pairs):
    base = by_seed([value + random.randint(-9, 9) / 64 for value in values], first=1 if in_pairs else 1000)
    mixed = list(by_seed(values).items())
    random.shuffle(mixed)
    found, other = statistics.test(by_seed(values), base, ANY), statistics.test(dict(mixed), base, ANY)
    assert (other.name, other.n) == (found.name, found.n)
    for name in ("difference", "sd", "low", "high", "p"):
        assert getattr(other, name) == pytest.approx(getattr(found, name), abs=1e-9)


@settings(max_examples=12)
@given(VALUES, st.randoms(use_true_random=False), st.sampled_from([paired, welch]))
def test_the_interval_holds_0_where_the_test_shows_nothing(values, random, compared):
    found = compared(values, [value + random.randint(-64, 64) / 64 for value in values])
    assert (found.p < 0.05) == (not found.low <= 0 <= found.high)
    assert found.low <= found.difference <= found.high
