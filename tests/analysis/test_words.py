"""What a comparison says, in words."""

import math
from dataclasses import replace

import numpy as np
import pytest

from pipeline.analysis import words
from pipeline.comparing.comparison import compare
from pipeline.comparing.looks import Plan
from pipeline.comparing.statistics import estimate
from pipeline.comparing.verdicts import Contrast
from tests.comparable import BASE, BETTER, diverged, plan_of, run, runs_of

STEADY = [0.971, 0.972, 0.973, 0.974, 0.975]
TURNED = [*STEADY[1:], STEADY[0]]


def two(shift=0.0, **more):
    runs = [*runs_of("base", STEADY), *runs_of("other", [each + shift for each in TURNED])]
    return compare(runs, baseline="base", **more)


@pytest.mark.parametrize(
    ("verdict", "reason", "needed", "text"),
    [
        ("better", "", (5, 10), "better"),
        ("worse", "", None, "worse"),
        ("same", "", (5, 10), "same within ±0.1"),
        ("none", "runs of different code", (5, 10), "none: runs of different code"),
        ("undecided", "", None, "undecided"),
        ("undecided", "", (20, 40), "undecided (takes 20 to 40 seeds)"),
        ("undecided", "", (20, 20), "undecided (takes 20 seeds)"),
        ("undecided", "", (640, 2560), "undecided (takes 640 to over 1280 seeds)"),
        ("undecided", "", (2560, 2560), "undecided (takes over 1280 seeds)"),
        ("diverged in 1 of 5 runs", "", None, "diverged in 1 of 5 runs"),
    ],
)
def test_a_verdict_in_words(verdict, reason, needed, text):
    assert words.verdict_text(two(), Contrast("a", verdict=verdict, reason=reason, needed=needed)) == text


def test_a_difference_is_told_in_the_metrics_unit_with_its_interval_if_there_is_one():
    found = Contrast("a", 0.0123, 0.0045, 0.02)
    assert words.difference_text("val_accuracy", found) == "+1.23 [+0.45, +2.00]"
    assert words.difference_text("val_loss", found) == "+0.0123 [+0.0045, +0.0200]"
    assert words.difference_text("seconds_per_epoch", found) == "+0.01 [+0.00, +0.02]"
    assert words.difference_text("val_accuracy", Contrast("a", -0.0123)) == "-1.23"
    assert words.difference_text("val_accuracy", Contrast("a")) == ""


def test_without_a_plan_it_is_said_that_there_is_no_verdict_and_why():
    test, why = words.how_tested(two())
    assert test == "intervals: paired over 5 seeds; the interval holds with 95 %, for new seeds on the same split"
    assert why.startswith("no verdict: no plan made these runs, and who looks until the answer pleases is wrong")
    three = compare([*two().groups[0].runs, *two().groups[1].runs, *runs_of("c", STEADY)], baseline="base")
    assert "; all intervals hold with 95 %, " in words.how_tested(three)[0]


def test_with_a_plan_the_intervals_of_all_looks_hold_and_it_is_said_for_what():
    plan = plan_of(10)
    assert words.how_tested(two(plan=plan))[0] == (
        "intervals: paired over 5 seeds; all intervals, of all looks, hold with 95 %, for new seeds on the same split"
    )


def test_intervals_that_no_plan_foresaw_do_not_hold_together_with_the_others():
    runs = [*runs_of("base", STEADY), *runs_of("other", TURNED), *runs_of("late", TURNED)]

    def told(*labels):
        found = compare(runs, baseline="base", plan=plan_of(5), objections=dict.fromkeys(labels, "it was added"))
        return words.how_tested(found)[0]

    start, end = "intervals: paired over 5 seeds; ", " with 95 %, for new seeds on the same split"
    assert told("late") == f"{start}all intervals, of all looks, but those without a verdict, hold{end}"
    assert told("late", "other") == f"{start}each interval by itself holds{end}"


def test_before_the_first_look_there_are_no_intervals_to_tell_of():
    runs = [*runs_of("base", STEADY[:4]), *runs_of("other", TURNED[:4])]
    assert [line[:6] for line in words.how_tested(compare(runs, baseline="base", plan=plan_of(5)))] == ["look 0"]


@pytest.mark.parametrize(
    ("seeds", "what"),
    [
        ("1 2 3 4 5", "new seeds on the same split"),
        ("1 2/1 3/2 4/3 5/4", "new seeds on new splits"),
        ("1 2/1 3 4/1 5", "new seeds on the same 2 splits"),
    ],
)
def test_an_interval_speaks_of_new_splits_only_where_no_two_seeds_share_one(seeds, what):
    plan = Plan(tuple(seeds.split()), tuple(seeds.split()), 1)
    assert words.how_tested(replace(two(plan=plan_of(10)), plan=plan))[0].endswith(f"with 95 %, for {what}")


def test_what_comes_next_is_told_with_its_runs_and_their_time():
    """5 more of each at 20 epochs of 3 seconds."""
    runs = [
        replace(each, metrics={**each.metrics, "seconds_per_epoch": 3.0})
        for each in (*runs_of("base", STEADY), *runs_of("other", TURNED))
    ]
    assert words.how_tested(compare(runs, baseline="base", plan=plan_of(20)))[-1] == (
        "look 1 of 5, 10, 20; next: 10 seeds, 10 runs more, about 10 min of training"
    )
    assert words.how_tested(compare(runs, baseline="base", plan=plan_of(5)))[-1] == (
        "look 1 of 5; next: 10 seeds, 10 runs more, about 10 min of training; the file's seeds end at 5"
    )


def test_runs_that_are_there_before_the_first_look_are_not_counted_as_to_come():
    runs = [*runs_of("base", STEADY), *runs_of("other", TURNED[:3]), *runs_of("third", TURNED[:4])]
    found = compare(runs, baseline="base", plan=plan_of(10, 2))
    assert words.how_tested(found)[-1].startswith("look 0 of 5, 10; next: 5 seeds, 3 runs more, ")


def test_variants_at_several_looks_wait_for_the_next_of_the_one_that_is_behind():
    ten = [0.97 + place / 1000 for place in range(10)]
    runs = [*runs_of("base", ten), *runs_of("other", ten), *runs_of("third", ten[:5])]
    found = compare(runs, baseline="base", plan=plan_of(20, 2))
    assert words.how_tested(found)[-1].startswith("look 1 of 5, 10, 20; next: 10 seeds, 5 runs more, ")


def test_nothing_comes_next_where_all_is_decided_or_nothing_planned():
    assert not any("next:" in line for line in words.how_tested(two(0.02, plan=plan_of(20))))
    assert not any("next:" in line for line in words.how_tested(two()))
    assert words.how_tested(compare(runs_of("a", BASE))) == []


def test_after_the_last_look_there_is_none():
    plan = plan_of(1280)
    found = two(plan=plan)
    last = replace(found, contrasts=(replace(found.contrasts[0], look=1280),))
    assert words.how_tested(last)[-1].endswith("; there is none after it")


def test_the_answer_tells_the_baselines_value_and_each_verdict():
    assert words.sentence(two(0.02, plan=plan_of(5))) == (
        "validation accuracy of base is 97.30 % (sd 0.16, n = 5); against it: other better (+2.00 points)."
    )
    assert words.sentence(two()) == (
        "validation accuracy of base is 97.30 % (sd 0.16, n = 5); against it: other without a verdict (+0.00 points)."
    )


def test_the_answer_of_one_group_is_its_mean_with_the_interval():
    assert words.sentence(compare(runs_of("base", STEADY))) == (
        "validation accuracy of base is 97.30 % (sd 0.16, 95 % interval 97.10 to 97.50, n = 5)."
    )
    assert words.sentence(compare([run("base", 1, 0.973)])) == "validation accuracy of base is 97.30 %."


def test_an_answer_about_divergences():
    runs = [*runs_of("base", BASE), *runs_of("fast", BETTER), diverged("fast", 4)]
    assert words.sentence(compare(runs, baseline="base")).endswith("against it: fast diverged in 1 of 4 runs.")
    runs = [*runs_of("base", BASE), diverged("base", 4), *runs_of("a", BETTER)]
    assert words.sentence(compare(runs, baseline="base")) == (
        "base diverged in 1 of 4 runs; against it: a not judged: base diverged in 1 of 4 runs."
    )


@pytest.mark.parametrize(("metric", "order"), [("val_accuracy", "c a b"), ("val_loss", "b a c")])
def test_the_best_stands_first(metric, order):
    values = {"base": 0.5, "a": 0.52, "b": 0.51, "c": 0.53}
    runs = [
        each
        for turn, (name, value) in enumerate(values.items())
        for each in runs_of(name, np.roll([value + k / 1e5 for k in range(5)], turn), metric=metric)
    ]
    found = words.sentence(compare(runs, baseline="base", metric=metric, plan=plan_of(5, 3)))
    told = found.partition("against it: ")[2].split(", ")
    assert [each.split()[0] for each in told] == order.split()


def many(shifts, **more):
    """Variants, each as far from the baseline as its shift."""
    runs = runs_of("base", [each - 0.4 for each in STEADY])
    for index, shift in enumerate(shifts):
        runs += runs_of(f"variant{index:02}", [each - 0.4 + shift for each in TURNED])
    return compare(runs, baseline="base", plan=plan_of(5, len(shifts)), **more)


def test_the_answer_of_50_variants_names_the_decided_best_first_and_counts_the_others():
    found = words.sentence(many([0.0] * 47 + [0.21, 0.23, -0.3]))
    assert found == (
        "validation accuracy of base is 57.30 % (sd 0.16, n = 5); against it: variant48 better (+23.00 points), "
        "variant47 better (+21.00 points), variant49 worse (-30.00 points), 47 undecided."
    )


def test_the_answer_of_50_decided_variants_names_twelve():
    found = words.sentence(many([0.2 + index / 1000 for index in range(50)]))
    assert found.count("points)") == 12
    assert found.partition("against it: ")[2].startswith("variant49 better (+24.90 points), variant48 better")
    assert found.endswith(", 38 more better.")
    assert len(found) < 600


def test_fifty_variants_without_a_plan_are_counted():
    runs = [each for index in range(51) for each in runs_of(f"v{index}", STEADY)]
    assert words.sentence(compare(runs, baseline="v0")).endswith("against it: 50 without a verdict.")


def test_values_are_told_with_their_spread_and_times_without_an_interval():
    (group,) = compare(runs_of("a", STEADY)).groups
    value = group.estimate("val_accuracy")
    assert words.value_text("val_accuracy", value, alone=False) == "97.30 ± 0.16"
    assert words.value_text("val_accuracy", value, alone=True) == "97.30 ± 0.16, 97.10 to 97.50"
    assert words.value_text("seconds_per_epoch", value, alone=True) == "0.97 ± 0.00"
    assert words.value_text("val_accuracy", None, alone=True) == ""
    assert words.value_text("val_accuracy", replace(value, sd=math.nan), alone=True) == "97.30"


@pytest.mark.parametrize(
    ("metric", "claimed", "values", "text"),
    [
        (
            "test_accuracy",
            0.98,
            [0.92, 0.93, 0.94],
            "98 % is claimed (a page); here it is 93.00 % (95 % interval 90.52 to 95.48, n = 3): less.",
        ),
        (
            "test_accuracy",
            0.95,
            [0.92, 0.93, 0.94],
            "95 % is claimed (a page); here it is 93.00 % (95 % interval 90.52 to 95.48, n = 3): which agrees.",
        ),
        (
            "test_loss",
            0.1,
            [0.2, 0.3, 0.25],
            "0.1 is claimed (a page); here it is 0.2500 (95 % interval 0.1258 to 0.3742, n = 3): more.",
        ),
        ("test_accuracy", 0.985, [0.97], "98.5 % is claimed (a page); here it is 97.00 % (n = 1)."),
        ("test_accuracy", 0.985, [], "98.5 % is claimed (a page); here no run has one."),
    ],
)
def test_a_claim_stands_beside_what_was_measured(metric, claimed, values, text):
    found = estimate(values) if values else None
    words_of = f"cnn: a test {metric.removeprefix('test_')} of {text}"
    assert words.claim_text("cnn", metric, claimed, "a page", found) == words_of
