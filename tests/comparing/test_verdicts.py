"""What a comparison says of each group: which runs a look takes, the interval's level, the verdict from it."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from pipeline.comparing.comparison import compare
from pipeline.comparing.looks import Plan
from pipeline.comparing.statistics import Difference
from pipeline.comparing.verdicts import EVERY, Contrast, look_of, verdict_of
from tests.comparable import BASE, BETTER, diverged, plan_of, run, runs_of, verdicts

STEADY = [0.1, 0.2, 0.3, 0.4, 0.5]  # in any order the same spread, so that no skewness widens


def spread(values, *, shift=0.0, turn=0):
    """The values in another order: pairs with a spread, of groups that have the same."""
    return [value + shift for value in [*values[turn:], *values[:turn]]]


# From an interval to a verdict


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (0.01, 0.5, ("better", "worse")),
        (-0.5, -0.01, ("worse", "better")),
        (0.01, 0.05, ("better", "worse")),
        (-0.1, 0.1, ("same", "same")),
        (0.0, 0.1, ("same", "same")),
        (-0.1, 0.11, ("undecided", "undecided")),
        (-0.11, 0.1, ("undecided", "undecided")),
        (0.0, 0.5, ("undecided", "undecided")),
        (-0.5, 0.0, ("undecided", "undecided")),
        (math.nan, math.nan, ("undecided", "undecided")),
    ],
)
def test_the_interval_alone_makes_the_verdict(low, high, words):
    found = tuple(verdict_of(low, high, 0.1, higher_better=more) for more in (True, False))
    assert found == words


@pytest.mark.parametrize(("metric", "words"), [("f1", ("better", "worse")), ("val_loss", ("worse", "better"))])
def test_more_or_less_of_a_metric_is_what_one_wants(metric, words):
    runs = [
        *runs_of("low", [each + 1 for each in STEADY], metric=metric),
        *runs_of("high", spread(STEADY, shift=9, turn=1), metric=metric),
    ]
    for base, word in zip(("low", "high"), words, strict=True):
        (found,) = compare(runs, baseline=base, metric=metric, plan=plan_of(5)).contrasts
        assert found.verdict == word


# The level of a look


def test_the_first_look_spends_a_hundredth_of_the_5_percent():
    """Differences 0.1, 0.1, 0.1, 0.1, -0.4: their spread is sqrt(0.05), over sqrt 5 it is 0.1; t(0.99975, 4) = 10.3063.

    t at the level 0.0005, two tails.
    """
    runs = [*runs_of("base", STEADY, metric="f1"), *runs_of("a", spread(STEADY, shift=2, turn=1), metric="f1")]
    (found,) = compare(runs, baseline="base", metric="f1", plan=plan_of(5)).contrasts
    half = float(stats.t.ppf(1 - 0.0005 / 2, 4)) * 0.1
    assert half == pytest.approx(1.03063, abs=1e-5)
    assert (found.low, found.high) == pytest.approx((2 - half, 2 + half))
    assert (found.verdict, found.look, found.test) == ("better", 5, "paired over 5 seeds")
    p = stats.ttest_1samp([2.1, 2.1, 2.1, 2.1, 1.6], 0).pvalue
    assert found.p == pytest.approx(100 * p, rel=1e-4)  # of the whole error, of which this look has a hundredth


def test_a_contrast_of_several_has_its_part_of_the_level():
    values = {"base": STEADY, **{name: spread(STEADY, turn=turn) for turn, name in enumerate("abcd", start=1)}}
    runs = [each for name, its in values.items() for each in runs_of(name, its, metric="f1")]
    found = compare(runs, baseline="base", metric="f1", plan=plan_of(5, contrasts=4)).contrasts[0]
    # each shift's differences have other spreads (0.05, 0.075, 0.075, 0.05): the median is 0.0625 of those
    half = float(stats.t.ppf(1 - 0.0005 / 4 / 2, 4)) * math.sqrt(0.0625 / 5)
    assert (found.low, found.high) == pytest.approx((-half, half))


def test_without_a_plan_all_runs_have_intervals_that_share_5_percent_and_no_verdict():
    runs = [*runs_of("base", STEADY, metric="f1"), *runs_of("a", spread(STEADY, shift=2, turn=1), metric="f1")]
    (found,) = compare(runs, baseline="base", metric="f1").contrasts
    half = float(stats.t.ppf(0.975, 4)) * 0.1
    assert (found.low, found.high) == pytest.approx((2 - half, 2 + half))
    assert (found.verdict, found.reason, found.look, found.needed) == ("none", "no plan", 0, None)
    two = compare([*runs, *runs_of("b", spread(STEADY, shift=2, turn=1), metric="f1")], baseline="base", metric="f1")
    half = float(stats.t.ppf(0.9875, 4)) * 0.1
    assert [(each.low, each.high) for each in two.contrasts] == [pytest.approx((2 - half, 2 + half))] * 2


def test_what_diverged_takes_no_part_of_the_level_of_runs_without_a_plan():
    runs = [*runs_of("base", BASE), *runs_of("a", BETTER)]
    alone = compare(runs, baseline="base").contrast("a")
    beside = compare([*runs, *(diverged("b", seed) for seed in (1, 2, 3))], baseline="base")
    assert beside.contrast("a") == alone
    assert [each.label for each in beside.contrasts] == ["a", "b"]


@pytest.mark.parametrize("plan", [None, plan_of(5)])
def test_equal_differences_of_three_seeds_are_no_certainty(plan):
    runs = [*runs_of("base", BASE), *runs_of("a", [each + 0.01 for each in BASE])]
    (found,) = compare(runs, baseline="base", plan=plan).contrasts
    assert found.difference == pytest.approx(0.01)
    assert math.isnan(found.low) if plan else found.high - found.low > 0.009
    assert found.verdict == ("undecided" if plan else "none")


def test_groups_without_any_spread_are_undecided():
    runs = [*runs_of("base", [0.9] * 5), *runs_of("a", [0.95] * 5)]
    (found,) = compare(runs, baseline="base", plan=plan_of(5)).contrasts
    assert (found.verdict, found.test, found.look, found.needed) == ("undecided", "", 5, None)
    assert math.isnan(found.low)
    assert found.difference == pytest.approx(0.05)


def test_twelve_and_twelve_runs_with_two_seeds_in_common_are_compared_from_all_24():
    """0.3 points apart, with a standard deviation of 0.08; a plan takes the ten and ten that reach its look."""
    noise = 0.001 * np.array([-1.5, 0.5, -1, 1, -0.5, 0.5, -0.5, 0, 0, 1.5, 0, 0])
    runs = [*runs_of("base", 0.9 + noise), *runs_of("a", 0.903 + noise, first_seed=11)]
    (found,) = compare(runs, baseline="base").contrasts
    assert (found.test, found.difference) == ("Welch, 12 and 12 runs", pytest.approx(0.003))
    assert 0 < found.low < 0.003
    own, of_base = (tuple(str(seed) for seed in range(first, first + 12)) for first in (11, 1))
    (found,) = compare(runs, baseline="base", plan=Plan(own, of_base, 1)).contrasts
    assert (found.test, found.difference) == ("Welch, 10 and 10 runs", pytest.approx(0.003))
    assert found.verdict == "better"


# Which runs a look takes


def test_a_look_takes_the_first_seeds_in_the_plans_order_and_the_others_wait():
    plan = Plan(tuple("97531") + tuple("86420"), tuple("97531") + tuple("86420"), 1)
    early = [
        run(name, seed, value, metric="f1")
        for name in ("base", "a")
        for seed, value in zip("97531", STEADY, strict=True)
    ]
    late = [run("base", seed, 50.0, metric="f1") for seed in "8642"]
    before = compare(early, baseline="base", metric="f1", plan=plan)
    after = compare([*early, *late], baseline="base", metric="f1", plan=plan)
    assert after.contrasts == before.contrasts
    assert [each.seed for each in after.groups[0].runs] == list("97531")


def test_a_look_waits_for_a_seed_that_is_missing_and_knows_no_interval_before_the_first():
    runs = [*runs_of("base", STEADY, metric="f1"), *runs_of("a", [7.0, 8.0, 9.0, 7.5], metric="f1")]
    (found,) = compare(runs, baseline="base", metric="f1", plan=plan_of(10)).contrasts
    assert (found.look, found.verdict, found.difference) == (0, "undecided", pytest.approx(7.875 - 0.3))
    assert math.isnan(found.low)
    assert math.isnan(found.high)


def test_a_missing_seed_of_the_baseline_keeps_all_at_the_look_before():
    plan = plan_of(10, 2, baseline_seeds=range(1, 16))
    names = {"a": 10, "b": 10, "base": 14}
    runs = [each for name, n in names.items() for each in runs_of(name, np.linspace(0, 1, n), metric="f1")]
    found = compare(runs, baseline="base", metric="f1", plan=plan)
    assert [each.look for each in found.contrasts] == [5, 5]
    assert [each.test for each in found.contrasts] == ["Welch, 5 and 8 runs"] * 2
    whole = compare([*runs, run("base", 15, 0.5, metric="f1")], baseline="base", metric="f1", plan=plan)
    assert [each.test for each in whole.contrasts] == ["Welch, 10 and 15 runs"] * 2


def test_a_variant_without_a_planned_run_is_undecided():
    runs = [*runs_of("base", STEADY), run("a", 77, 0.9)]
    (found,) = compare(runs, baseline="base", plan=plan_of(5)).contrasts
    assert (found.verdict, found.reason, found.look) == ("undecided", "", 0)
    assert math.isnan(found.difference)


def test_a_seed_missing_in_the_middle_counts_whatever_came_after():
    plan = plan_of(10)
    groups = compare([*runs_of("base", range(10)), *runs_of("a", range(9))], baseline="base").groups
    base, nine = groups
    assert look_of(nine, base, plan) == 5
    assert look_of(nine.only([each for each in nine.seeds if each != "3"]), base, plan) == 0
    assert look_of(base, base, plan) == 10


def numbers(count, seed):
    return list(np.random.default_rng(seed).normal(size=count))


def test_what_stands_between_two_looks_is_moved_by_no_run_of_another_group():
    """Floors are raised by what other groups show: of those at the same look, and of their runs there alone."""
    plan = plan_of(20, 3)
    at_5 = {name: numbers(20, seed)[:5] for seed, name in enumerate(("base", "a", "b", "c"))}

    def contrast_of_a(*lost, **counts):
        values = {name: numbers(20, seed)[: counts.get(name, 5)] for seed, name in enumerate(at_5)}
        runs = [each for name, its in values.items() for each in runs_of(name, its, metric="f1")]
        return compare([*runs, *lost], baseline="base", metric="f1", plan=plan).contrast("a")

    found = contrast_of_a()
    for counts in ({"b": 7}, {"base": 10, "b": 10}, {"base": 20, "b": 20, "c": 11}, {"a": 9, "base": 20}):
        moved = contrast_of_a(**counts)
        assert (moved.low, moved.high, moved.look) == (found.low, found.high, 5)
    assert contrast_of_a(diverged("c", 6)).low == found.low
    waiting = [contrast_of_a(c=count) for count in (1, 2, 4)]
    assert len({(each.low, each.high) for each in waiting}) == 1


def test_a_variant_that_goes_on_alone_is_looked_at_alone():
    plan = plan_of(10, 2)
    values = {"base": numbers(10, 1), "a": numbers(10, 2), "b": numbers(5, 3)}
    runs = [each for name, its in values.items() for each in runs_of(name, its, metric="f1")]
    found = compare(runs, baseline="base", metric="f1", plan=plan)
    assert [each.look for each in found.contrasts] == [10, 5]
    assert [each.test for each in found.contrasts] == ["paired over 10 seeds", "paired over 5 seeds"]
    assert [len(each.runs) for each in found.groups] == [10, 10, 5]


def test_of_two_variants_one_whose_spread_is_small_by_luck_is_not_taken_at_its_word():
    """Variances 0.025, a quarter of it and 0.025: the second counts three times. Of pairs 0.05 and 0.00625: it too."""
    half = [each / 2 for each in STEADY]
    runs = [*runs_of("base", STEADY, metric="f1"), *runs_of("b", spread(STEADY, turn=1), metric="f1", first_seed=50)]
    found = compare([*runs, *runs_of("a", half, metric="f1", first_seed=90)], baseline="base", metric="f1")
    assert found.contrast("a").found.error == pytest.approx(math.sqrt((0.025 + 3 * 0.00625) / 5))
    assert found.contrast("b").found.error == pytest.approx(math.sqrt(2 * 0.025 / 5))
    runs = [*runs_of("base", STEADY, metric="f1"), *runs_of("b", spread(STEADY, turn=1), metric="f1")]
    found = compare([*runs, *runs_of("a", half, metric="f1")], baseline="base", metric="f1")
    assert found.contrast("a").found.error == pytest.approx(math.sqrt(3 * 0.00625 / 5))


# Divergences


def test_a_run_that_diverged_in_a_look_is_the_verdict():
    runs = [*runs_of("base", STEADY), *runs_of("a", STEADY[:4]), diverged("a", 5)]
    (found,) = compare(runs, baseline="base", plan=plan_of(5)).contrasts
    assert (found.verdict, found.look) == ("diverged in 1 of 5 runs", 5)
    assert all(map(math.isnan, (found.difference, found.low, found.high, found.p)))


def test_a_run_that_diverged_after_a_look_waits_for_the_next():
    runs = [*runs_of("base", STEADY), *runs_of("a", spread(STEADY, turn=1)), diverged("a", 6)]
    (found,) = compare(runs, baseline="base", plan=plan_of(10)).contrasts
    assert (found.verdict, found.look) == ("undecided", 5)


def test_a_baseline_that_diverged_in_a_look_leaves_nothing_to_judge():
    runs = [*runs_of("base", STEADY[:4]), diverged("base", 5), *runs_of("a", STEADY), *runs_of("b", STEADY[1:])]
    found = compare([*runs, diverged("b", 5)], baseline="base", plan=plan_of(5, 2))
    assert verdicts(found) == {"a": "not judged: base diverged in 1 of 5 runs", "b": "diverged in 1 of 5 runs"}


# Mixtures


def coded(name, codes, **more):
    return [run(name, k, v, tags={"code": codes[k % 2]}, **more) for k, v in enumerate(STEADY, start=1)]


@pytest.mark.parametrize(
    ("of_base", "of_a", "reason"),
    [
        ("xx", "xx", ""),
        ("xy", "xx", "runs of different code in base"),
        ("xx", "xy", "runs of different code in a"),
        ("xx", "yy", "runs of different code"),
    ],
)
def test_runs_of_different_code_get_no_verdict(of_base, of_a, reason):
    runs = [*coded("base", of_base), *coded("a", of_a)]
    (found,) = compare(runs, baseline="base", plan=plan_of(5)).contrasts
    assert (found.verdict, found.reason) == ("none" if reason else "undecided", reason)
    assert found.low < found.difference < found.high


def test_code_of_the_users_own_may_differ_between_groups_and_not_within_one():
    own = {"network": "my_net:Net"}
    (found,) = compare([*coded("base", "xx"), *coded("a", "yy", **own)], baseline="base", plan=plan_of(5)).contrasts
    assert (found.verdict, found.reason) == ("undecided", "")
    (found,) = compare([*coded("base", "xx"), *coded("a", "xy", **own)], baseline="base", plan=plan_of(5)).contrasts
    assert (found.verdict, found.reason) == ("none", "runs of different code in a")


def test_runs_on_different_data_get_no_verdict():
    runs = [*runs_of("base", STEADY), *runs_of("a", STEADY, data="d2")]
    (found,) = compare(runs, baseline="base", plan=plan_of(5)).contrasts
    assert (found.verdict, found.reason) == ("none", "runs on different data")


def test_a_mixture_in_runs_that_no_look_took_is_no_reason():
    runs = [*coded("base", "xx"), *coded("a", "xx"), run("a", 6, 0.5, tags={"code": "y"}, data="d2")]
    assert compare(runs, baseline="base", plan=plan_of(10)).contrasts[0].reason == ""


def test_an_objection_to_the_plan_allows_no_verdict_also_of_what_has_no_run_yet():
    runs = [*runs_of("base", STEADY), *runs_of("a", [9.0, 9.1, 9.2, 9.3, 9.4]), run("b", 77, 0.5)]
    objections = {EVERY: "seeds were changed"}
    found = compare([*runs, diverged("c", 1)], baseline="base", plan=plan_of(5, 3), objections=objections)
    assert verdicts(found) == {"a": "none", "b": "none", "c": "diverged in 1 of 1 runs"}
    assert [each.reason for each in found.contrasts[:2]] == ["seeds were changed"] * 2
    assert found.undecided == ()


def test_an_objection_to_a_variant_leaves_the_others_their_verdicts():
    far = [9.0, 9.1, 9.2, 9.3, 9.4]
    runs = [*runs_of("base", STEADY), *runs_of("a", far), *runs_of("b", far)]
    found = compare(runs, baseline="base", plan=plan_of(5, 2), objections={"b": "it was added"})
    assert [(each.label, each.verdict, each.reason) for each in found.contrasts] == [
        ("a", "better", ""),
        ("b", "none", "it was added"),
    ]


def test_which_way_is_better_is_as_said_or_as_the_name_tells():
    runs = [*runs_of("base", STEADY, metric="ece"), *runs_of("a", [each + 9 for each in STEADY], metric="ece")]
    found = [
        compare(runs, metric="ece", baseline="base", plan=plan_of(5), higher_better=each)
        for each in (None, True, False)
    ]
    assert [each.contrasts[0].verdict for each in found] == ["better", "better", "worse"]
    assert [each.higher_better for each in found] == [True, True, False]


# How many seeds it takes


def spread_runs(sd):
    """Two groups of five values with this standard deviation each."""
    unit = np.array([-1, -0.5, 0.0, 0.5, 1]) / np.std([-1, -0.5, 0.0, 0.5, 1], ddof=1)
    return [each for k, name in enumerate(("base", "a")) for each in runs_of(name, np.roll(unit * sd, k), metric="f1")]


def needed(sd, smallest, asked=1):
    plan = replace(plan_of(5), asked=asked)
    found = compare(spread_runs(sd), baseline="base", metric="f1", smallest=smallest, plan=plan)
    return found.contrasts[0].needed


def test_it_takes_from_the_look_of_the_smaller_to_that_of_the_larger_spread():
    """A standard deviation of 1 by 8 degrees of freedom lies between 0.774 and 1.514.

    Of two smallest differences the look at 10 pairs shows 2.58 of the smaller spread in 80 % and more; with the larger,
    1.32 spreads, it takes 20.
    """
    assert needed(1.0, 2.0) == (10, 20)
    assert needed(2.0, 4.0) == (10, 20)
    assert needed(1.0, 1e6) == (5, 5)
    assert needed(1.0, 1e-6) == (2560, 2560)


def test_more_contrasts_take_more_seeds():
    assert [needed(1.0, 1.0, asked=count) for count in (1, 10, 100)] == [(20, 160), (40, 160), (40, 160)]


def test_nothing_is_said_of_how_many_it_takes_where_there_is_no_spread():
    runs = [run("base", 1, 0.5), run("a", 1, 0.6)]
    assert compare(runs, baseline="base", plan=plan_of(5)).contrasts[0].needed is None


# Rules that hold for any numbers

NUMBERS = st.lists(st.integers(-512, 512).map(lambda value: value / 64), min_size=5, max_size=7)
GROUPS = st.lists(NUMBERS, min_size=2, max_size=4)
PLANS = st.sampled_from([None, plan_of(5, 3)])


def runs_from(values, *, change=lambda value: value, unpaired=False):
    runs = []
    for k, each in enumerate(values):
        first = 100 * k if unpaired else 1
        runs += [
            run(f"v{k}", first + n, change(value), metric="score", started=1000 * k + n) for n, value in enumerate(each)
        ]
    return runs


def compared(runs, **more):
    return compare(runs, metric="score", **{"smallest": 0.25, "baseline": "v0", **more})


def assert_same(found, other, *, factor=1.0):
    told = [[(each.label, each.verdict, each.test, each.needed) for each in one.contrasts] for one in (found, other)]
    assert told[0] == told[1]
    for mine, its in zip(found.contrasts, other.contrasts, strict=True):
        assert its.p == pytest.approx(mine.p, abs=1e-9, nan_ok=True)
        for name in ("difference", "low", "high"):
            assert getattr(its, name) == pytest.approx(factor * getattr(mine, name), abs=1e-9, nan_ok=True)


@settings(max_examples=10)
@given(GROUPS, st.booleans(), PLANS, st.randoms(use_true_random=False))
def test_the_order_in_which_runs_are_found_decides_nothing(values, unpaired, plan, random):
    runs = runs_from(values, unpaired=unpaired)
    mixed = random.sample(runs, len(runs))
    assert repr(compared(mixed, plan=plan)) == repr(compared(runs, plan=plan))
    assert repr(compared(mixed, baseline=None)) == repr(compared(runs, baseline=None))


@settings(max_examples=10)
@given(GROUPS, st.booleans(), PLANS, st.integers(-64, 64))
def test_a_constant_added_to_all_decides_nothing(values, unpaired, plan, constant):
    found = compared(runs_from(values, unpaired=unpaired), plan=plan)
    moved = runs_from(values, unpaired=unpaired, change=lambda value: value + constant)
    assert_same(found, compared(moved, plan=plan))


@settings(max_examples=10)
@given(GROUPS, st.booleans(), PLANS, st.sampled_from([0.25, 0.5, 4.0]))
def test_another_unit_changes_the_numbers_and_no_verdict(values, unpaired, plan, factor):
    found = compared(runs_from(values, unpaired=unpaired), plan=plan)
    runs = runs_from(values, unpaired=unpaired, change=lambda value: factor * value)
    assert_same(found, compared(runs, smallest=0.25 * factor, plan=plan), factor=factor)


@settings(max_examples=10)
@given(st.lists(NUMBERS, min_size=2, max_size=2), st.booleans(), PLANS)
def test_seen_from_the_other_side_it_is_the_opposite(values, unpaired, plan):
    runs = runs_from(values, unpaired=unpaired)
    (found,), (turned,) = (compared(runs, baseline=base, plan=plan).contrasts for base in ("v0", "v1"))
    assert (turned.low, turned.high) == pytest.approx((-found.high, -found.low), nan_ok=True)
    opposite = {"better": "worse", "worse": "better"}
    assert turned.verdict == opposite.get(found.verdict, found.verdict)


@settings(max_examples=10)
@given(GROUPS, st.booleans())
def test_less_of_a_loss_is_as_good_as_more_of_its_opposite(values, unpaired):
    runs = runs_from(values, unpaired=unpaired)
    mirrored = [replace(each, metrics={"error": -each.metrics["score"]}) for each in runs]
    found = compare(mirrored, metric="error", baseline="v0", smallest=0.25, plan=plan_of(5, 3))
    assert verdicts(found) == verdicts(compared(runs, plan=plan_of(5, 3)))


def test_the_p_of_a_contrast_is_what_its_look_would_have_had_to_spend():
    """Of the look at 5, which spends a hundredth: at a hundred times its own error it would just be shown."""
    found = Difference("Welch", 2.0, 1.0, 8)
    assert Contrast("a", look=5, found=found).p == pytest.approx(min(1.0, found.p * 100))
    strong = Difference("Welch", 9.0, 1.0, 8)
    assert Contrast("a", look=10, found=strong).p == pytest.approx(strong.p / 0.43)
    assert Contrast("a", found=strong).p == strong.p
    assert math.isnan(Contrast("a").p)
