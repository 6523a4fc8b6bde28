"""What a comparison says of its groups: verdicts, groups, notes, each by its rule."""

import gc
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from pipeline.analysis import comparison
from pipeline.comparing.comparison import Run, bounds_of, compare, higher_is_better, smallest_of
from tests.analysis.test_statistics import power

BASE = [0.970, 0.972, 0.974]
BETTER = [0.980, 0.981, 0.982]


@pytest.fixture(autouse=True, scope="module")
def little_garbage():
    """statsmodels collects garbage at each correction: with all that is imported, nine tenths of the time."""
    gc.freeze()


def run(variant, seed, value, *, metric="val_accuracy", status="FINISHED", started=0, tags=(), data="d1", **params):
    knobs = {"variant_knob": variant, "epochs": "20", "seed": str(seed), **params}
    tags = {"variant": variant, **dict(tags)}
    return Run(f"{variant}-{seed}-{started}", variant, status, started, knobs, tags, {metric: value}, data)


def runs_of(variant, values, *, first_seed=1, metric="val_accuracy", **more):
    return [run(variant, first_seed + k, value, metric=metric, **more) for k, value in enumerate(values)]


def diverged(variant, seed, **more):
    return replace(run(variant, seed, 0.1, **more), metrics={}, tags={"variant": variant, "diverged_in_epoch": "3"})


def verdicts(found):
    return {each.label: each.verdict for each in found.contrasts}


# What decides


@pytest.mark.parametrize(("metric", "more_is_better"), [("val_accuracy", True), ("f1", True), ("val_loss", False)])
def test_more_or_less_of_a_metric_is_what_one_wants(metric, more_is_better):
    runs = [*runs_of("low", BASE, metric=metric), *runs_of("high", BETTER, metric=metric)]
    words = ("better", "worse") if more_is_better else ("worse", "better")
    assert verdicts(compare(runs, baseline="low", metric=metric)) == {"high": words[0]}
    assert verdicts(compare(runs, baseline="high", metric=metric)) == {"low": words[1]}


def test_what_is_known_of_each_metric():
    names = ("val_accuracy", "test_loss", "seconds_per_epoch", "error_rate", "f1")
    assert [higher_is_better(name) for name in names] == [True, False, False, False, True]
    assert [bounds_of(name) for name in names] == [
        (0, 1),
        (0, math.inf),
        (0, math.inf),
        (-math.inf, math.inf),
        (-math.inf, math.inf),
    ]
    assert [smallest_of(name) for name in names] == [0.001, 0.005, 0.05, 0.001, 0.001]


def test_without_another_word_the_validation_accuracy_decides():
    runs = [replace(each, metrics={**each.metrics, "val_loss": 0.5}) for each in runs_of("a", BASE)]
    assert compare(runs).metric == "val_accuracy"


def test_less_than_0_05_is_shown_and_0_05_is_not():
    told = [comparison._verdict(0.1, p, 3, 99, True) for p in (0.0499, 0.0501)]
    assert told == ["better", "too few runs to say (takes 99)"]


@pytest.mark.parametrize(
    ("difference", "p", "n", "needed", "words"),
    [
        (0.1, 0.001, 2, 99, "too few runs to say (takes 99)"),
        (0.1, 0.001, 3, 99, "better"),
        (-0.1, 0.001, 3, 99, "worse"),
        (0.1, 0.9, 3, 3, "no difference shown"),
        (0.1, 0.9, 3, 4, "too few runs to say (takes 4)"),
        (0.1, 0.9, 2, 3, "too few runs to say (takes 3)"),
        (0.1, 0.9, 2, 2, "too few runs to say (takes 2)"),
        (0.1, 0.9, 3, 999, "too few runs to say (takes 999)"),
        (0.1, 0.9, 3, 1000, "too few runs to say (takes over 1000)"),
        (0.1, math.nan, 3, None, "too few runs to say"),
        (0.1, math.nan, 1, None, "too few runs to say"),
    ],
)
def test_a_verdict_by_runs_and_p(difference, p, n, needed, words):
    assert comparison._verdict(difference, p, n, needed, True) == words


def test_the_fewer_runs_of_two_unpaired_groups_count():
    """Far apart, but two runs of one group are too few, whatever the other has."""
    runs = [*runs_of("many", [0.1, 0.11, 0.12, 0.13]), *runs_of("two", [0.9, 0.91], first_seed=50)]
    (found,) = compare(runs, baseline="many").contrasts
    assert (found.test, found.p < 0.05) == ("Welch, 2 and 4 runs", True)
    assert found.verdict.startswith("too few runs to say (takes ")


def noisy(shift=0.0):
    return [0.970 + shift, 0.980 + shift, 0.975 - shift]


@pytest.mark.parametrize("unpaired", [False, True])
@pytest.mark.parametrize("others", [1, 2, 5])
def test_how_many_runs_it_takes_is_corrected_for_the_number_of_comparisons(others, unpaired):
    runs = runs_of("base", [0.975, 0.971, 0.979])
    for k in range(others):
        runs += runs_of(f"v{k}", noisy(), first_seed=100 if unpaired else 1)
    contrasts = compare(runs, baseline="base", smallest=0.01).contrasts
    sds = [np.std(noisy(), ddof=1), np.std([0.975, 0.971, 0.979], ddof=1)]
    sd = math.hypot(*sds) / math.sqrt(2) if unpaired else np.std(np.subtract(noisy(), [0.975, 0.971, 0.979]), ddof=1)
    for each in contrasts:
        assert power(0.01 / sd, each.needed, 0.05 / others, not unpaired) >= 0.8
        assert power(0.01 / sd, each.needed - 1, 0.05 / others, not unpaired) < 0.8
        assert each.verdict == f"too few runs to say (takes {each.needed})"


def test_two_comparisons_take_more_runs_than_one():
    one = compare([*runs_of("base", BASE), *runs_of("v0", noisy())], baseline="base")
    two = compare([*runs_of("base", BASE), *runs_of("v0", noisy()), *runs_of("v1", noisy())], baseline="base")
    assert two.contrast("v0").needed > one.contrast("v0").needed


def test_the_p_of_each_comparison_is_corrected_and_only_for_those_that_are_tested():
    runs = [*runs_of("base", BASE), *runs_of("a", BETTER), *runs_of("b", [0.971, 0.9722, 0.976]), run("c", 77, 0.99)]
    found = compare([*runs, diverged("d", 1)], baseline="base")
    raw = {
        name: stats.ttest_rel(values, BASE).pvalue for name, values in (("a", BETTER), ("b", [0.971, 0.9722, 0.976]))
    }
    assert found.contrast("a").p == pytest.approx(2 * raw["a"])
    assert found.contrast("b").p == pytest.approx(max(2 * raw["a"], raw["b"]))
    assert math.isnan(found.contrast("c").p)
    assert math.isnan(found.contrast("d").p)
    assert verdicts(found)["c"] == "too few runs to say"


def test_what_one_comparison_would_show_many_do_not():
    """p = 0.03 alone is a difference; of two such, each is 0.06."""
    values = [0.012, 0.003, 0.011, 0.002, 0.004]
    base, other = [0.5] * 5, [0.5 + each for each in values]
    raw = stats.ttest_rel(other, base).pvalue
    assert 0.025 < raw < 0.05
    assert verdicts(compare([*runs_of("base", base), *runs_of("a", other)], baseline="base")) == {"a": "better"}
    found = compare([*runs_of("base", base), *runs_of("a", other), *runs_of("b", other)], baseline="base", smallest=1.0)
    assert [each.p for each in found.contrasts] == pytest.approx([2 * raw, 2 * raw])
    assert verdicts(found) == {"a": "no difference shown", "b": "no difference shown"}


def test_the_smallest_difference_of_interest_decides_how_many_it_takes():
    runs = [*runs_of("base", [0.975, 0.971, 0.979]), *runs_of("a", noisy())]
    needed = [compare(runs, baseline="base", smallest=each).contrasts[0].needed for each in (None, 0.001, 0.002, 1.0)]
    assert needed[0] == needed[1] > needed[2] > needed[3] == 3


def test_a_contrast_tells_test_difference_and_interval():
    found = compare([*runs_of("base", BASE), *runs_of("a", BETTER)], baseline="base").contrast("a")
    expected = stats.ttest_rel(BETTER, BASE).confidence_interval(0.95)
    assert found.difference == pytest.approx(0.009)
    assert (found.low, found.high) == (expected.low, expected.high)
    assert (found.label, found.test, found.verdict, found.needed) == ("a", "paired over 3 seeds", "better", 10)


# Rules that hold for any numbers

NUMBERS = st.lists(st.integers(-512, 512).map(lambda value: value / 64), min_size=3, max_size=5)
GROUPS = st.lists(NUMBERS, min_size=2, max_size=4)


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
    assert [(each.label, each.verdict, each.test, each.needed) for each in other.contrasts] == [
        (each.label, each.verdict, each.test, each.needed) for each in found.contrasts
    ]
    for mine, its in zip(found.contrasts, other.contrasts, strict=True):
        assert its.p == pytest.approx(mine.p, abs=1e-9, nan_ok=True)
        for name in ("difference", "low", "high"):
            assert getattr(its, name) == pytest.approx(factor * getattr(mine, name), abs=1e-9, nan_ok=True)


@settings(max_examples=10)
@given(GROUPS, st.booleans(), st.randoms(use_true_random=False))
def test_the_order_in_which_runs_are_found_decides_nothing(values, unpaired, random):
    runs = runs_from(values, unpaired=unpaired)
    mixed = random.sample(runs, len(runs))
    assert compared(mixed) == compared(runs)
    assert compared(mixed, baseline=None) == compared(runs, baseline=None)


@settings(max_examples=10)
@given(GROUPS, st.booleans(), st.integers(-64, 64))
def test_a_constant_added_to_all_decides_nothing(values, unpaired, constant):
    found = compared(runs_from(values, unpaired=unpaired))
    assert_same(found, compared(runs_from(values, unpaired=unpaired, change=lambda value: value + constant)))


@settings(max_examples=10)
@given(GROUPS, st.booleans(), st.sampled_from([0.25, 0.5, 4.0]))
def test_another_unit_changes_the_numbers_and_no_verdict(values, unpaired, factor):
    found = compared(runs_from(values, unpaired=unpaired))
    runs = runs_from(values, unpaired=unpaired, change=lambda value: factor * value)
    assert_same(found, compared(runs, smallest=0.25 * factor), factor=factor)


@settings(max_examples=10)
@given(st.lists(NUMBERS, min_size=2, max_size=2), st.booleans())
def test_seen_from_the_other_side_it_is_the_opposite(values, unpaired):
    runs = runs_from(values, unpaired=unpaired)
    (found,), (turned,) = (compared(runs, baseline=base).contrasts for base in ("v0", "v1"))
    assert (turned.difference, turned.p) == pytest.approx((-found.difference, found.p))
    assert (turned.low, turned.high) == pytest.approx((-found.high, -found.low))
    opposite = {"better": "worse", "worse": "better"}
    assert turned.verdict == opposite.get(found.verdict, found.verdict)


@settings(max_examples=10)
@given(GROUPS, st.booleans())
def test_less_of_a_loss_is_as_good_as_more_of_its_opposite(values, unpaired):
    mirrored = [
        replace(each, metrics={"error": -each.metrics["score"]}) for each in runs_from(values, unpaired=unpaired)
    ]
    found = compared(runs_from(values, unpaired=unpaired))
    assert verdicts(compare(mirrored, metric="error", baseline="v0", smallest=0.25)) == verdicts(found)
