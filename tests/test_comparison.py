import gc
import math

import numpy as np
import pytest
from scipy import stats

from pipeline.comparison import Run, compare
from pipeline.inference import estimate


def run(variant, seed, accuracy, *, status="FINISHED", started=0, data="d1", code="c1", **params):
    knobs = {"dropout": "0.2", "epochs": "20", "validation_size": "100", "seed": str(seed), **params}
    tags = {"variant": variant, "code": code} if variant else {"code": code}
    metrics = {"val_accuracy": accuracy, "val_loss": 1 - accuracy, "seconds_per_epoch": 1.0}
    return Run(f"{variant}-{seed}-{started}", f"{variant} {seed}", status, started, knobs, tags, metrics, data)


def runs_of(variant, values, *, first_seed=1, **params):
    return [run(variant, first_seed + k, value, **params) for k, value in enumerate(values)]


BASE = [0.970, 0.972, 0.974]
BETTER = [0.980, 0.981, 0.982]


def test_an_estimate_is_scipys_on_the_same_numbers():
    found = estimate(BASE)
    low, high = stats.t.interval(0.95, 2, loc=np.mean(BASE), scale=stats.sem(BASE))
    assert (found.mean, found.sd) == (np.mean(BASE), np.std(BASE, ddof=1))
    assert (found.low, found.high) == (low, high)


def test_common_seeds_are_compared_in_pairs_as_scipy_does():
    found = compare([*runs_of("base", BASE), *runs_of("other", BETTER, dropout="0")], baseline="base")
    (contrast,) = found.contrasts
    expected = stats.ttest_rel(BETTER, BASE)
    assert contrast.test == "paired over 3 seeds"
    assert contrast.p == expected.pvalue
    interval = expected.confidence_interval(0.95)
    assert (contrast.low, contrast.high) == (interval.low, interval.high)


def test_a_hand_worked_example():
    """Differences 0.010, 0.009, 0.008: mean 0.009, sd 0.001, t = 0.009 / (0.001 / sqrt 3) = 15.588, p = 0.00409;
    t(0.975, 2) = 4.3027, so the interval is 0.009 -+ 4.3027 * 0.001 / sqrt 3 = 0.009 -+ 0.002484."""
    found = compare([*runs_of("base", BASE), *runs_of("other", BETTER, dropout="0")], baseline="base")
    contrast = found.contrast("other")
    assert contrast.difference == pytest.approx(0.009, abs=1e-12)
    assert (contrast.low, contrast.high) == pytest.approx((0.006516, 0.011484), abs=1e-6)
    assert contrast.p == pytest.approx(0.00409, abs=1e-5)
    assert contrast.verdict == "better"


def test_other_seeds_are_compared_as_welch_does():
    other = runs_of("other", BETTER, first_seed=10, dropout="0")
    (contrast,) = compare([*runs_of("base", BASE), *other], baseline="base").contrasts
    expected = stats.ttest_ind(BETTER, BASE, equal_var=False)
    assert contrast.test == "Welch, 3 and 3 runs"
    assert (contrast.p, contrast.difference) == (expected.pvalue, np.mean(BETTER) - np.mean(BASE))


def test_holms_correction_by_hand():
    """Smallest p times 3, the next times 2, the largest times 1, none below its forerunner."""
    base = np.array([0.90, 0.91, 0.92, 0.93])
    shifts = {"a": [0.01, 0.011, 0.012, 0.009], "b": [0.004, 0.001, 0.006, 0.003], "c": [0.001, -0.002, 0.002, 0.0]}
    runs = runs_of("base", base)
    raw = {}
    for index, (name, shift) in enumerate(shifts.items()):
        runs += runs_of(name, base + shift, dropout=f"0.{index + 3}")
        raw[name] = stats.ttest_rel(base + shift, base).pvalue
    assert raw["a"] < raw["b"] < raw["c"]
    found = compare(runs, baseline="base")
    a = 3 * raw["a"]
    b = max(a, 2 * raw["b"])
    c = max(b, raw["c"])
    assert [found.contrast(name).p for name in "abc"] == pytest.approx([a, b, c])


def test_less_loss_is_better():
    runs = [*runs_of("base", BASE), *runs_of("other", BETTER, dropout="0")]
    assert compare(runs, baseline="base", metric="val_loss").contrast("other").verdict == "better"
    assert compare(runs, baseline="other", metric="val_loss").contrast("base").verdict == "worse"


def test_with_few_noisy_runs_it_says_how_many_it_takes():
    runs = [*runs_of("base", [0.97, 0.98, 0.975]), *runs_of("other", [0.98, 0.971, 0.977], dropout="0")]
    contrast = compare(runs, baseline="base").contrasts[0]
    assert contrast.verdict == f"too few runs to say (takes {contrast.needed})"
    from statsmodels.stats.power import TTestPower

    effect = 0.001 / np.std([0.01, -0.009, 0.002], ddof=1)
    assert TTestPower().power(effect, contrast.needed, 0.05) >= 0.8
    assert TTestPower().power(effect, contrast.needed - 1, 0.05) < 0.8


def test_two_runs_are_too_few_for_any_verdict():
    runs = [*runs_of("base", [0.9, 0.91]), *runs_of("other", [0.99, 0.999], dropout="0")]
    assert compare(runs, baseline="base").contrasts[0].verdict.startswith("too few runs to say")


def test_one_run_has_a_difference_but_no_interval():
    contrast = compare([run("base", 1, 0.9), run("other", 1, 0.95, dropout="0")], baseline="base").contrasts[0]
    assert contrast.difference == pytest.approx(0.05)
    assert math.isnan(contrast.low)
    assert contrast.verdict == "too few runs to say"


def test_with_enough_precise_runs_no_difference_is_shown():
    noise = [0.0001, -0.0001, 0.0002, -0.0002, 0.0]
    runs = [*runs_of("base", [0.98] * 5), *runs_of("other", [0.98 + each for each in noise], dropout="0")]
    assert compare(runs, baseline="base").contrasts[0].verdict == "no difference shown"


def test_the_same_numbers_twice_show_no_difference():
    runs = [*runs_of("base", BASE), *runs_of("twin", BASE, dropout="0")]
    contrast = compare(runs, baseline="base").contrasts[0]
    assert (contrast.difference, contrast.p, contrast.verdict) == (0, 1, "no difference shown")


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
    gc.unfreeze()
    assert 0 < wrong / 2000 <= 0.05


def test_groups_differ_in_more_than_the_seed_and_only_what_differs_is_a_column():
    runs = [*runs_of("", BASE, dropout="0"), *runs_of("", BETTER, dropout="0.5", optimizer="sgd")]
    found = compare(runs)
    assert [each.label for each in found.groups] == ["dropout=0 optimizer=", "dropout=0.5 optimizer=sgd"]
    assert found.groups[0].knobs == {"dropout": "0", "optimizer": ""}
    assert found.common == {"epochs": "20", "validation_size": "100"}


def test_variants_of_one_name_with_other_knobs_are_told_apart():
    runs = [*runs_of("same", BASE, dropout="0"), *runs_of("same", BETTER, dropout="0.5")]
    assert [each.label for each in compare(runs).groups] == ["dropout=0", "dropout=0.5"]


def test_of_runs_that_repeat_a_seed_the_newest_counts_and_it_is_said():
    runs = [run("base", 1, 0.5, started=1), run("base", 1, 0.9, started=2), run("base", 2, 0.8)]
    found = compare(runs)
    assert found.groups[0].values("val_accuracy") == {"1": 0.9, "2": 0.8}
    assert found.notes == ("1 runs repeat a seed of their group; the newest of each counts",)


def test_unfinished_runs_are_counted_and_left_out():
    runs = [*runs_of("base", BASE), run("base", 9, 0.1, status="FAILED"), run("base", 8, 0.1, status="RUNNING")]
    found = compare(runs)
    assert len(found.groups[0].runs) == 3
    assert found.notes == ("2 of 5 runs are not finished or lack val_accuracy, and are left out",)


@pytest.mark.parametrize(("what", "change"), [("data", {"data": "d2"}), ("code", {"code": "c2"})])
def test_other_data_or_code_is_said_plainly(what, change):
    runs = [*runs_of("base", BASE), *runs_of("other", BETTER, dropout="0", **change)]
    first, second = sorted([f"{what[0]}1", f"{what[0]}2"])
    assert compare(runs).notes == (f"runs on different {what} are compared with each other: {first}, {second}",)


def test_accuracy_on_the_test_images_is_said_to_decide_nothing():
    (note,) = compare(runs_of("base", BASE, validation_size="0")).notes
    assert (
        note == "val_accuracy of runs with validation_size 0 is that of the test images: nothing may be selected by it"
    )


def test_nothing_finished_or_no_such_baseline_or_metric_is_one_clear_line():
    with pytest.raises(ValueError, match="none of 1 runs is finished and has val_accuracy; metrics there: seconds_per"):
        compare([run("base", 1, 0.9, status="FAILED")])
    with pytest.raises(ValueError, match="finished and has f1"):
        compare(runs_of("base", BASE), metric="f1")
    with pytest.raises(ValueError, match="baseline 'bsae' is not among the groups: base"):
        compare(runs_of("base", BASE), baseline="bsae")


def test_without_a_baseline_the_largest_group_is_it():
    runs = [*runs_of("small", [0.9, 0.91], dropout="0"), *runs_of("large", BASE)]
    assert compare(runs).baseline == "large"
