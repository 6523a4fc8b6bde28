import json
import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from pipeline.analysis import charts, report, tables
from pipeline.comparing.comparison import Run, compare
from pipeline.comparing.statistics import estimate


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


def diverged(variant, seed, *, status="FAILED", **params):
    lost = run(variant, seed, 0.1, status=status, **params)
    return replace(lost, tags={**lost.tags, "diverged_in_epoch": "3"}, metrics={"train_accuracy": 0.1})


def test_survivors_of_a_divergence_are_not_judged():
    runs = [*runs_of("base", BASE), *runs_of("fast", BETTER, dropout="0"), diverged("fast", 4, dropout="0")]
    found = compare([*runs, diverged("fast", 5, dropout="0", status="FINISHED")], baseline="base")
    contrast = found.contrast("fast")
    assert contrast.verdict == "diverged in 2 of 5 runs"
    assert all(math.isnan(each) for each in (contrast.difference, contrast.low, contrast.high, contrast.p))
    assert found.notes == (
        "fast diverged in 2 of 5 runs (seed 4, 5); the values shown are of the other 3 and judge nothing",
    )
    assert tables.rows(found)[1][2] == "3 (+2 diverged)"
    assert tables.rows(found)[1][-3:] == ["", "", "diverged in 2 of 5 runs"]
    assert tables.sentence(found).endswith("against it: fast diverged in 2 of 5 runs.")
    assert [line.split(",")[-1] for line in tables.as_csv(found).splitlines()] == [
        "diverged_in_epoch",
        *[""] * 6,
        "3",
        "3",
    ]
    assert len(json.loads(tables.as_json(found))["groups"][1]["diverged"]) == 2


def test_a_variant_beside_one_that_diverged_is_judged_as_without_it():
    runs = [*runs_of("base", BASE), *runs_of("other", BETTER, dropout="0")]
    alone = compare(runs, baseline="base").contrast("other")
    beside = compare([*runs, *(diverged("fast", seed, dropout="0.9") for seed in (1, 2, 3))], baseline="base")
    assert beside.contrast("other") == alone
    assert [each.label for each in beside.contrasts] == ["other", "fast"]


def test_against_a_baseline_that_diverged_nothing_is_judged():
    runs = [*runs_of("base", BASE), diverged("base", 4), *runs_of("other", BETTER, dropout="0")]
    found = compare(runs, baseline="base")
    assert found.contrasts[0].verdict == "not judged: base diverged in 1 of 4 runs"
    assert tables.sentence(found).startswith("base diverged in 1 of 4 runs; against it: other not judged")


def test_where_every_run_diverged_that_is_the_answer(tmp_path):
    runs = [diverged(name, seed, dropout=name[-1]) for name in ("a0", "b1") for seed in (1, 2)]
    found = compare(runs, baseline="a0")
    assert tables.sentence(found) == "a0 diverged in 2 of 2 runs; against it: b1 diverged in 2 of 2 runs."
    files = report.write_files(found, tmp_path)
    assert "diverged in epoch 3" in (tmp_path / "report.html").read_text()
    assert {"intervals.png", "table.md"} <= {path.name for path in files}
    tables.print_comparison(found)


@pytest.mark.parametrize("seed", range(20))
def test_an_interval_of_accuracies_ends_at_0_and_1_and_holds_its_mean(seed):
    random = np.random.default_rng(seed)
    values = list(random.beta(*random.uniform(0.05, 20, 2), size=random.integers(2, 7)).round(2))
    found = estimate(values, (0, 1))
    assert 0 <= found.low <= found.mean <= found.high <= 1
    free = estimate(values)
    assert (found.mean, found.sd) == (free.mean, free.sd)
    assert (found.low, found.high) == (max(free.low, 0), min(free.high, 1))


def test_intervals_above_100_percent_are_cut_and_so_are_the_pictures(monkeypatch):
    """71.35 to 100.98 was printed of two runs of the digits."""
    found = compare([*runs_of("base", [0.85, 0.8733]), *runs_of("other", [0.0, 1.0], dropout="0")], baseline="base")
    base, other = (each.estimate("val_accuracy") for each in found.groups)
    assert (base.low, base.high) == (pytest.approx(0.7136, abs=1e-4), 1)
    assert (other.low, other.high) == (0, 1)
    assert (found.contrasts[0].low, found.contrasts[0].high) == (-1, 1)
    assert "71.36 to 100.00" in tables.rows(found)[0][3]
    drawn = []
    monkeypatch.setattr("matplotlib.axes.Axes.errorbar", lambda self, x, y, xerr, **_: drawn.append((x[0], xerr)))
    charts.intervals(found)
    assert [(x - e[0][0], x + e[1][0]) for x, e in drawn] == [pytest.approx((71.36, 100), abs=1e-2), (0, 100)]


@pytest.mark.parametrize("same", [0.0, 1.0])
def test_seeds_that_are_all_right_or_all_wrong_stay_there(same):
    found = estimate([same] * 3, (0, 1))
    assert (found.low, found.mean, found.high) == (same, same, same)


def test_percentages_of_a_foreign_run_are_left_as_they_are():
    found = estimate([97.0, 98.0], (0, 1))
    assert found.low < 97 < 98 < found.high


def test_losses_end_at_0():
    found = compare(runs_of("base", [0.99, 0.9]), metric="val_loss").groups[0].estimate("val_loss")
    assert found.low == 0


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
